//! UpdateVoiceCall.

use prost_types::FieldMask;
use tonic::{Code, Status};
use voicecall::proto::{UpdateVoiceCallRequest, VoiceCall, VoiceCallDirection, VoiceCallStatus};

use crate::support::{
    Client, Server, assert_refused, create, delete, get, inbound, mask, metadata, micros,
    postgres::{connect, contents},
    reference,
    server::settings,
    update,
};

async fn send(client: &mut Client, request: UpdateVoiceCallRequest) -> Result<VoiceCall, Status> {
    let response = client.update_voice_call(request).await?;
    Ok(response.into_inner().voice_call.expect("it is answered"))
}

#[tokio::test]
async fn without_a_mask_the_fields_that_are_set_are_written() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, reference()).await;
    let patch = VoiceCall {
        uid: reference().uid.to_uppercase(),
        duration: Some(0),
        call_summary: Some("corrected".into()),
        staff_uid: Some(String::new()),
        ..VoiceCall::default()
    };
    let updated = update(&mut client, patch, &[]).await.expect("it is fine");
    let expected = VoiceCall {
        duration: Some(0),
        call_summary: Some("corrected".into()),
        staff_uid: None,
        updated_at: updated.updated_at,
        revision: 2,
        ..created.clone()
    };
    assert_eq!(updated, expected);
    assert!(micros(updated.updated_at) >= micros(created.updated_at));
    assert_eq!(
        get(&mut client, &created.uid).await.expect("there"),
        expected
    );
}

#[tokio::test]
async fn every_field_can_be_named_alone_and_is_cleared_when_it_is_unset() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut expected = create(&mut client, reference()).await;
    type Clear = fn(&mut VoiceCall);
    let fields: [(&str, Clear); 10] = [
        ("duration", |call| call.duration = None),
        ("staff_uid", |call| call.staff_uid = None),
        ("client_uid", |call| call.client_uid = None),
        ("from_number", |call| call.from_number = None),
        ("to_number", |call| call.to_number = None),
        ("recording_url", |call| call.recording_url = None),
        ("call_summary", |call| call.call_summary = None),
        ("external_app_url", |call| call.external_app_url = None),
        ("handled_by_staff_uid", |call| {
            call.handled_by_staff_uid = None
        }),
        ("handled_at", |call| call.handled_at = None),
    ];
    for (path, clear) in fields {
        let patch = VoiceCall {
            uid: reference().uid,
            ..VoiceCall::default()
        };
        let updated = update(&mut client, patch, &[path])
            .await
            .expect("it is fine");
        clear(&mut expected);
        expected.revision += 1;
        expected.updated_at = updated.updated_at;
        assert_eq!(updated, expected, "{path}");
    }
}

#[tokio::test]
async fn a_mask_writes_what_it_names_and_nothing_else() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, reference()).await;
    let patch = VoiceCall {
        uid: created.uid.clone(),
        status: VoiceCallStatus::Missed.into(),
        direction: VoiceCallDirection::Outbound.into(),
        from_number: Some("+14155550148".into()),
        // Not named, and not even looked at.
        duration: Some(-5),
        recording_url: Some("no URL".into()),
        created_at: None,
        ..VoiceCall::default()
    };
    let paths = ["status", "from_number", "status", "to_number"];
    let updated = update(&mut client, patch, &paths)
        .await
        .expect("it is fine");
    let expected = VoiceCall {
        status: VoiceCallStatus::Missed.into(),
        from_number: Some("+14155550148".into()),
        to_number: None,
        updated_at: updated.updated_at,
        revision: 2,
        ..created
    };
    assert_eq!(updated, expected);
}

#[tokio::test]
async fn an_asterisk_replaces_all_that_clients_write_and_nothing_that_the_server_does() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, reference()).await;
    let replacement = VoiceCall {
        uid: created.uid.clone(),
        status: VoiceCallStatus::Missed.into(),
        direction: VoiceCallDirection::Outbound.into(),
        client_uid: Some("5ya4gbwm2c3qic8".into()),
        created_at: Some(prost_types::Timestamp::default()),
        updated_at: Some(prost_types::Timestamp::default()),
        deleted_at: Some(prost_types::Timestamp::default()),
        revision: 99,
        ..VoiceCall::default()
    };
    let updated = update(&mut client, replacement.clone(), &["*"]).await;
    let updated = updated.expect("it is fine");
    let expected = VoiceCall {
        created_at: created.created_at,
        updated_at: updated.updated_at,
        deleted_at: None,
        revision: 2,
        ..replacement
    };
    assert_eq!(updated, expected);
}

#[tokio::test]
async fn an_asterisk_needs_status_and_direction() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, reference()).await;
    let patch = VoiceCall {
        uid: created.uid.clone(),
        ..VoiceCall::default()
    };
    let result = update(&mut client, patch, &["*"]).await;
    let paths = ["voice_call.status", "voice_call.direction"];
    assert_refused(result, Code::InvalidArgument, "INVALID_FIELD", &paths);
    assert_eq!(
        get(&mut client, &created.uid).await.expect("there"),
        created
    );
}

#[tokio::test]
async fn an_update_at_another_revision_is_refused_and_says_which() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, reference()).await;
    create(&mut client, inbound()).await;
    let request = |expected_revision| UpdateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            uid: created.uid.clone(),
            duration: Some(7),
            ..VoiceCall::default()
        }),
        expected_revision,
        ..Default::default()
    };
    let result = send(&mut client, request(2)).await;
    let status = result.as_ref().expect_err("it is at 1");
    assert_eq!(metadata(status)["current_revision"], "1");
    assert_eq!(metadata(status)["uid"], created.uid);
    assert_refused(result, Code::Aborted, "REVISION_MISMATCH", &[]);
    let updated = send(&mut client, request(1)).await.expect("it is at 1");
    assert_eq!(updated.revision, 3);
}

#[tokio::test]
async fn of_racing_updates_from_one_revision_on_two_servers_one_succeeds() {
    let first = Server::start().await;
    let second = Server::start_on(&first.database_url, settings()).await;
    let servers = [first, second];
    let created = create(&mut servers[0].client(), reference()).await;
    let attempts = (0..20).map(|place: usize| {
        let mut client = servers[place % 2].client();
        let request = UpdateVoiceCallRequest {
            voice_call: Some(VoiceCall {
                uid: created.uid.clone(),
                duration: Some(1000 + i32::try_from(place).expect("small")),
                ..VoiceCall::default()
            }),
            expected_revision: created.revision,
            ..Default::default()
        };
        tokio::spawn(async move { send(&mut client, request).await })
    });
    let attempts: Vec<_> = attempts.collect();
    let mut winners = Vec::new();
    for attempt in attempts {
        match attempt.await.expect("no panic") {
            Ok(call) => winners.push(call),
            Err(status) => {
                assert_eq!(status.code(), Code::Aborted);
                assert_eq!(metadata(&status)["current_revision"], "2");
            }
        }
    }
    assert_eq!(winners.len(), 1);
    let read = get(&mut servers[1].client(), &created.uid).await;
    assert_eq!(read.expect("it is there"), winners[0]);
}

#[tokio::test]
async fn allow_missing_creates_from_the_whole_call_whatever_the_mask_says() {
    let server = Server::start().await;
    let mut client = server.client();
    let request = || UpdateVoiceCallRequest {
        voice_call: Some(reference()),
        update_mask: mask(&["duration"]),
        allow_missing: true,
        ..Default::default()
    };
    let created = send(&mut client, request()).await.expect("it is created");
    let expected = VoiceCall {
        updated_at: created.updated_at,
        revision: 1,
        ..reference()
    };
    assert_eq!(created, expected);

    let mut other = request();
    let call = other.voice_call.as_mut().expect("it is set");
    (call.duration, call.client_uid) = (Some(5), Some("another".into()));
    let updated = send(&mut client, other).await.expect("it is updated");
    let expected = VoiceCall {
        duration: Some(5),
        updated_at: updated.updated_at,
        revision: 2,
        ..expected
    };
    assert_eq!(updated, expected);
}

#[tokio::test]
async fn allow_missing_needs_a_direction_only_to_create() {
    let server = Server::start().await;
    let mut client = server.client();
    let request = |allow_missing| UpdateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            uid: reference().uid,
            duration: Some(7),
            ..VoiceCall::default()
        }),
        allow_missing,
        ..Default::default()
    };
    let result = send(&mut client, request(true)).await;
    let paths = ["voice_call.direction"];
    assert_refused(result, Code::InvalidArgument, "INVALID_FIELD", &paths);
    let result = send(&mut client, request(false)).await;
    let status = result.as_ref().expect_err("there is none");
    assert_eq!(metadata(status)["uid"], reference().uid);
    assert_refused(result, Code::NotFound, "CALL_NOT_FOUND", &[]);
    create(&mut client, reference()).await;
    let updated = send(&mut client, request(true)).await;
    assert_eq!(updated.expect("it is there").duration, Some(7));
}

#[tokio::test]
async fn an_upsert_that_expects_a_revision_does_not_create() {
    let server = Server::start().await;
    let mut client = server.client();
    let request = UpdateVoiceCallRequest {
        voice_call: Some(reference()),
        allow_missing: true,
        expected_revision: 5,
        ..Default::default()
    };
    let result = send(&mut client, request).await;
    let status = result.as_ref().expect_err("there is none");
    assert_eq!(metadata(status)["current_revision"], "0");
    assert_refused(result, Code::Aborted, "REVISION_MISMATCH", &[]);
}

#[tokio::test]
async fn validate_only_checks_the_stored_state_too_and_writes_nothing() {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    let created = create(&mut client, reference()).await;
    let before = contents(&database).await;
    let request = |patch: VoiceCall| UpdateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            uid: reference().uid,
            ..patch
        }),
        validate_only: true,
        ..Default::default()
    };
    let longer = VoiceCall {
        duration: Some(500),
        ..VoiceCall::default()
    };
    let tried = send(&mut client, request(longer.clone())).await;
    let tried = tried.expect("it is fine");
    assert_eq!((tried.duration, tried.revision), (Some(500), 0));
    let tried = send(&mut client, request(reference())).await;
    assert_eq!(tried.expect("it is so already"), created);
    let open = VoiceCall {
        status: VoiceCallStatus::IncomingCall.into(),
        ..VoiceCall::default()
    };
    let refused = send(&mut client, request(open)).await;
    assert_refused(
        refused,
        Code::FailedPrecondition,
        "ILLEGAL_STATUS_CHANGE",
        &[],
    );
    assert_eq!(contents(&database).await, before);
    delete(&mut client, &created.uid)
        .await
        .expect("it is there");
    let refused = send(&mut client, request(longer)).await;
    assert_refused(refused, Code::FailedPrecondition, "CALL_DELETED", &[]);
}

#[tokio::test]
async fn a_mask_without_paths_is_no_mask() {
    let server = Server::start().await;
    let mut client = server.client();
    create(&mut client, reference()).await;
    let request = UpdateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            uid: reference().uid,
            duration: Some(1),
            ..VoiceCall::default()
        }),
        update_mask: Some(FieldMask::default()),
        ..Default::default()
    };
    let updated = send(&mut client, request).await.expect("it is fine");
    assert_eq!(updated.duration, Some(1));
    assert_eq!(updated.client_uid, reference().client_uid);
}
