//! HandleVoiceCall, DeleteVoiceCall and UndeleteVoiceCall.

use prost_types::Timestamp;
use tonic::{Code, Status};
use voicecall::proto::{
    DeleteVoiceCallRequest, HandleVoiceCallRequest, UndeleteVoiceCallRequest, VoiceCall,
};

use crate::support::{
    Client, Server, assert_refused, create, delete, get, handle, inbound, metadata, reference,
    undelete, update,
};

const ABSENT: &str = "00000000-0000-7000-8000-000000000000";

async fn delete_request(
    client: &mut Client,
    request: DeleteVoiceCallRequest,
) -> Result<Option<VoiceCall>, Status> {
    let response = client.delete_voice_call(request).await?;
    Ok(response.into_inner().voice_call)
}

#[tokio::test]
async fn handling_sets_who_and_when() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, inbound()).await;
    let handled = handle(&mut client, &created.uid.to_uppercase(), "ann").await;
    let handled = handled.expect("it is there");
    let expected = VoiceCall {
        handled_by_staff_uid: Some("ann".into()),
        handled_at: handled.updated_at,
        updated_at: handled.updated_at,
        revision: 2,
        ..created
    };
    assert_eq!(handled, expected);
    assert_eq!(
        get(&mut client, &expected.uid).await.expect("there"),
        expected
    );
}

#[tokio::test]
async fn the_time_of_handling_may_be_given_in_microseconds() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, inbound()).await;
    let request = HandleVoiceCallRequest {
        uid: created.uid,
        handled_by_staff_uid: "ann".into(),
        handled_at: Some(Timestamp {
            seconds: 1_000_000_000,
            nanos: 123_456_789,
        }),
        ..Default::default()
    };
    let response = client.handle_voice_call(request).await;
    let handled = response.expect("it is there").into_inner().voice_call;
    let expected = Timestamp {
        seconds: 1_000_000_000,
        nanos: 123_456_000,
    };
    assert_eq!(handled.expect("it is answered").handled_at, Some(expected));
}

#[tokio::test]
async fn handling_completes_a_pair_of_which_one_is_set() {
    let server = Server::start().await;
    let mut client = server.client();
    let by_alone = VoiceCall {
        handled_by_staff_uid: Some("ann".into()),
        ..inbound()
    };
    let created = create(&mut client, by_alone).await;
    let handled = handle(&mut client, &created.uid, "ann").await;
    assert!(handled.expect("it is there").handled_at.is_some());
    let at_alone = VoiceCall {
        handled_at: reference().handled_at,
        ..inbound()
    };
    let created = create(&mut client, at_alone).await;
    let handled = handle(&mut client, &created.uid, "bob")
        .await
        .expect("there");
    assert_eq!(handled.handled_by_staff_uid.as_deref(), Some("bob"));
}

#[tokio::test]
async fn who_did_not_handle_a_call_takes_it_over_by_an_update() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, inbound()).await;
    handle(&mut client, &created.uid, "ann")
        .await
        .expect("there");
    let result = handle(&mut client, &created.uid, "bob").await;
    let status = result.as_ref().expect_err("ann did");
    assert_eq!(metadata(status)["uid"], created.uid);
    assert_refused(result, Code::FailedPrecondition, "ALREADY_HANDLED", &[]);
    let patch = VoiceCall {
        uid: created.uid,
        handled_by_staff_uid: Some("bob".into()),
        ..VoiceCall::default()
    };
    let updated = update(&mut client, patch, &[]).await.expect("it is fine");
    assert_eq!(updated.handled_by_staff_uid.as_deref(), Some("bob"));
}

#[tokio::test]
async fn a_deleted_call_is_found_with_the_time_of_its_deletion_until_it_is_restored() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, reference()).await;
    let deleted = delete(&mut client, &created.uid.to_uppercase()).await;
    let deleted = deleted.expect("it is there");
    let expected = VoiceCall {
        deleted_at: deleted.updated_at,
        updated_at: deleted.updated_at,
        revision: 2,
        ..created.clone()
    };
    assert_eq!(deleted, expected);
    assert_eq!(
        get(&mut client, &created.uid).await.expect("there"),
        expected
    );

    let restored = undelete(&mut client, &created.uid)
        .await
        .expect("it is there");
    let expected = VoiceCall {
        updated_at: restored.updated_at,
        revision: 3,
        ..created
    };
    assert_eq!(restored, expected);
    assert_eq!(
        get(&mut client, &expected.uid).await.expect("there"),
        expected
    );
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server = Server::start().await;
    let mut client = server.client();
    let results = [
        handle(&mut client, ABSENT, "ann").await,
        delete(&mut client, ABSENT).await,
        undelete(&mut client, ABSENT).await,
        get(&mut client, ABSENT).await,
    ];
    for result in results {
        let status = result.as_ref().expect_err("there is none");
        assert_eq!(metadata(status)["uid"], ABSENT);
        assert_refused(result, Code::NotFound, "CALL_NOT_FOUND", &[]);
    }
}

#[tokio::test]
async fn each_of_them_may_expect_a_revision() {
    let server = Server::start().await;
    let mut client = server.client();
    let uid = create(&mut client, reference()).await.uid;
    for (expected_revision, fits) in [(2, false), (1, true)] {
        let request = HandleVoiceCallRequest {
            uid: uid.clone(),
            handled_by_staff_uid: uid.clone(),
            expected_revision,
            ..Default::default()
        };
        let result = client.handle_voice_call(request).await;
        assert_expected(result, fits, "1");
    }
    for (expected_revision, fits) in [(2, false), (1, true)] {
        let request = DeleteVoiceCallRequest {
            uid: uid.clone(),
            expected_revision,
            ..Default::default()
        };
        let result = client.delete_voice_call(request).await;
        assert_expected(result, fits, "1");
    }
    for (expected_revision, fits) in [(1, false), (2, true)] {
        let request = UndeleteVoiceCallRequest {
            uid: uid.clone(),
            expected_revision,
            ..Default::default()
        };
        let result = client.undelete_voice_call(request).await;
        assert_expected(result, fits, "2");
    }
}

#[track_caller]
fn assert_expected<T: std::fmt::Debug>(result: Result<T, Status>, fits: bool, current: &str) {
    if fits {
        result.expect("it is at this revision");
    } else {
        let status = result.as_ref().expect_err("it is at another revision");
        assert_eq!(metadata(status)["current_revision"], current);
        assert_refused(result, Code::Aborted, "REVISION_MISMATCH", &[]);
    }
}

#[tokio::test]
async fn a_delete_with_allow_missing_is_content_with_a_call_that_is_gone_or_never_was() {
    let server = Server::start().await;
    let mut client = server.client();
    let uid = create(&mut client, reference()).await.uid;
    let deleted = delete(&mut client, &uid).await.expect("it is there");
    let request = |uid: &str, allow_missing, expected_revision| DeleteVoiceCallRequest {
        uid: uid.into(),
        allow_missing,
        expected_revision,
        ..Default::default()
    };
    let again = delete_request(&mut client, request(&uid, true, 0)).await;
    assert_eq!(again.expect("it is content"), Some(deleted.clone()));
    let never = delete_request(&mut client, request(ABSENT, true, 0)).await;
    assert_eq!(never.expect("it is content"), None);
    let result = delete_request(&mut client, request(&uid, false, 0)).await;
    assert_refused(result, Code::FailedPrecondition, "CALL_DELETED", &[]);
    let result = delete_request(&mut client, request(&uid, true, 1)).await;
    assert_refused(result, Code::Aborted, "REVISION_MISMATCH", &[]);
    assert_eq!(get(&mut client, &uid).await.expect("there"), deleted);
}

#[tokio::test]
async fn of_racing_handlers_one_member_of_staff_gets_the_call() {
    let server = Server::start().await;
    let created = create(&mut server.client(), inbound()).await;
    let attempts = (0..10).map(|staff| {
        let (mut client, uid) = (server.client(), created.uid.clone());
        tokio::spawn(async move { handle(&mut client, &uid, &format!("staff {staff}")).await })
    });
    let attempts: Vec<_> = attempts.collect();
    let mut winners = Vec::new();
    for attempt in attempts {
        match attempt.await.expect("no panic") {
            Ok(call) => winners.push(call),
            Err(status) => assert_eq!(status.code(), Code::FailedPrecondition),
        }
    }
    assert_eq!(winners.len(), 1);
    let read = get(&mut server.client(), &created.uid).await;
    assert_eq!(read.expect("it is there"), winners[0]);
}
