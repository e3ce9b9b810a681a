//! The client library's methods against the service.

use futures_util::TryStreamExt;
use tonic::Code;
use voicecall::{
    client::{Client, FieldViolation, Settings, SettingsError, Tls},
    proto::{
        BatchCreateVoiceCallsRequest, BatchGetVoiceCallsRequest, CreateVoiceCallRequest,
        DeleteVoiceCallRequest, ErrorReason, GetVoiceCallRequest, HandleVoiceCallRequest,
        ListVoiceCallsRequest, UndeleteVoiceCallRequest, UpdateVoiceCallRequest, VoiceCall,
    },
};

use crate::{
    gate::Gate,
    support::{Server, inbound, reference},
};

fn client(endpoint: &str) -> Client {
    Client::new(&Settings::new(endpoint)).expect("good settings")
}

fn creation(call: VoiceCall) -> CreateVoiceCallRequest {
    CreateVoiceCallRequest {
        voice_call: Some(call),
        ..Default::default()
    }
}

#[tokio::test]
async fn every_method_does_what_its_rpc_does() {
    let server = Server::start().await;
    let client = client(&server.endpoint);
    let uid = reference().uid;
    // As a task would, whose futures must be able to move between threads.
    let creating = tokio::spawn({
        let client = client.clone();
        async move { client.create(creation(reference())).await }
    });
    let created = creating.await.expect("no panic").expect("created");
    assert_eq!((created.uid.as_str(), created.revision), (uid.as_str(), 1));
    let batch = BatchCreateVoiceCallsRequest {
        voice_calls: vec![inbound(), inbound()],
        ..Default::default()
    };
    let others = client.batch_create(batch).await.expect("created");
    assert_eq!(
        others.iter().map(|call| call.revision).collect::<Vec<_>>(),
        [2, 3]
    );
    let lookup = GetVoiceCallRequest {
        uid: uid.clone(),
        min_revision: 3,
    };
    assert_eq!(
        client.get(lookup.clone()).await.expect("it is there"),
        created
    );
    let missing = uuid::Uuid::new_v4().to_string();
    let lookups = BatchGetVoiceCallsRequest {
        uids: vec![missing.clone(), others[1].uid.clone(), uid.clone()],
        ..Default::default()
    };
    let found = client.batch_get(lookups).await.expect("an answer");
    assert_eq!(found.voice_calls, [others[1].clone(), created]);
    assert_eq!(found.missing_uids, [missing]);
    let update = UpdateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            uid: uid.clone(),
            duration: Some(7),
            ..VoiceCall::default()
        }),
        expected_revision: 1,
        ..Default::default()
    };
    let updated = client.update(update).await.expect("updated");
    assert_eq!((updated.duration, updated.revision), (Some(7), 4));
    let handle = HandleVoiceCallRequest {
        uid: others[0].uid.clone(),
        handled_by_staff_uid: "ann".into(),
        ..Default::default()
    };
    let handled = client.handle(handle).await.expect("handled");
    assert_eq!(handled.handled_by_staff_uid.as_deref(), Some("ann"));
    let delete = DeleteVoiceCallRequest {
        uid: uid.clone(),
        ..Default::default()
    };
    let deleted = client
        .delete(delete)
        .await
        .expect("deleted")
        .expect("a call");
    assert!(deleted.deleted_at.is_some());
    let none = DeleteVoiceCallRequest {
        uid: uuid::Uuid::new_v4().to_string(),
        allow_missing: true,
        ..Default::default()
    };
    assert_eq!(client.delete(none).await.expect("fine"), None);
    let undelete = UndeleteVoiceCallRequest {
        uid,
        ..Default::default()
    };
    let restored = client.undelete(undelete).await.expect("restored");
    assert_eq!((restored.deleted_at, restored.revision), (None, 7));
    let page = client
        .list_page(ListVoiceCallsRequest::default())
        .await
        .expect("a page");
    assert_eq!((page.voice_calls.len(), page.revision), (3, 7));
}

#[tokio::test]
async fn a_list_asks_for_the_next_page_when_the_one_before_is_used_up() {
    let server = Server::start().await;
    let gate = Gate::start(&server.endpoint, []).await;
    let client = client(&gate.endpoint);
    let batch = BatchCreateVoiceCallsRequest {
        voice_calls: vec![inbound(); 5],
        ..Default::default()
    };
    let created = client.batch_create(batch).await.expect("created");
    let request = ListVoiceCallsRequest {
        order_by: "created_at".into(),
        page_size: 2,
        ..Default::default()
    };
    let pages = || gate.seen().len() - 1;
    let mut calls = std::pin::pin!(client.list(request));
    assert_eq!(pages(), 0);
    let mut listed = Vec::new();
    for expected in [1, 1, 2, 2, 3] {
        listed.push(calls.try_next().await.expect("a page").expect("a call"));
        assert_eq!(pages(), expected);
    }
    assert_eq!(calls.try_next().await.expect("the end"), None);
    assert_eq!(pages(), 3);
    // Made in one transaction, at one time: the uid decides.
    let mut created = created;
    created.sort_by(|a, b| a.uid.cmp(&b.uid));
    assert_eq!(listed, created);
}

#[tokio::test]
async fn a_list_ends_with_its_error() {
    let server = Server::start().await;
    let request = ListVoiceCallsRequest {
        order_by: "uid".into(),
        ..Default::default()
    };
    let mut calls = std::pin::pin!(client(&server.endpoint).list(request));
    let error = calls.try_next().await.expect_err("no such order");
    assert_eq!(error.reason(), Some(ErrorReason::InvalidField));
    assert_eq!(calls.try_next().await, Ok(None));
}

#[tokio::test]
async fn an_error_names_code_reason_fields_and_metadata() {
    let server = Server::start().await;
    let client = client(&server.endpoint);
    let bad = VoiceCall {
        duration: Some(-1),
        ..VoiceCall::default()
    };
    let error = client.create(creation(bad)).await.expect_err("refused");
    assert_eq!(error.code, Code::InvalidArgument);
    assert_eq!(error.reason(), Some(ErrorReason::InvalidField));
    let violation = |field: &str, description: &str| FieldViolation {
        field: field.into(),
        description: description.into(),
    };
    let mut violations = error.details.violations.clone();
    violations.sort_by(|a, b| a.field.cmp(&b.field));
    assert_eq!(
        violations,
        [
            violation("voice_call.direction", "is required"),
            violation("voice_call.duration", "must not be negative"),
        ]
    );
    let created = client.create(creation(inbound())).await.expect("created");
    let late = DeleteVoiceCallRequest {
        uid: created.uid,
        expected_revision: 9,
        ..Default::default()
    };
    let error = client.delete(late).await.expect_err("refused");
    assert_eq!(error.code, Code::Aborted);
    assert_eq!(error.reason(), Some(ErrorReason::RevisionMismatch));
    assert_eq!(error.details.metadata["current_revision"], "1");
    assert!(error.details.x_request_id.is_some());
}

#[tokio::test]
async fn settings_that_reach_no_service_are_refused_at_once() {
    for endpoint in [
        "",
        "localhost:50051",
        "ftp://localhost",
        "http://",
        "http://a b",
    ] {
        let refused = Client::new(&Settings::new(endpoint)).map(drop);
        assert!(
            matches!(refused, Err(SettingsError::Endpoint(_))),
            "{endpoint:?}"
        );
    }
    let unused = Settings {
        tls: Tls {
            server_name: Some("calls.example".into()),
            ..Tls::default()
        },
        ..Settings::new("http://127.0.0.1:1")
    };
    assert!(matches!(
        Client::new(&unused).map(drop),
        Err(SettingsError::TlsUnused)
    ));
    let no_file = Settings {
        tls: Tls {
            ca_certificate: Some("/nonexistent/ca.pem".into()),
            ..Tls::default()
        },
        ..Settings::new("https://127.0.0.1:1")
    };
    assert!(matches!(
        Client::new(&no_file).map(drop),
        Err(SettingsError::File { .. })
    ));
    let bad_token = Settings {
        token: Some("a\nb".into()),
        ..Settings::new("http://127.0.0.1:1")
    };
    assert!(matches!(
        Client::new(&bad_token).map(drop),
        Err(SettingsError::Token)
    ));
}
