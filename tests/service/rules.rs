//! The rules of life of a call, and the table of cases that the contract
//! decides.

use prost_types::Timestamp;
use tonic::Code;
use voicecall::proto::{
    CreateVoiceCallRequest, HandleVoiceCallRequest, UpdateVoiceCallRequest, VoiceCall,
    VoiceCallStatus,
};

use crate::support::{
    Server, assert_refused, create, delete, get, handle, inbound,
    postgres::{connect, contents},
    reference, undelete, update,
};

fn status_of(uid: &str, status: i32) -> VoiceCall {
    VoiceCall {
        uid: uid.into(),
        status,
        ..VoiceCall::default()
    }
}

#[tokio::test]
async fn an_open_call_may_become_anything_and_a_closed_one_is_never_opened() {
    let server = Server::start().await;
    let mut client = server.client();
    let open = i32::from(VoiceCallStatus::IncomingCall);
    for from in 1..=4 {
        for to in 1..=4 {
            let call = VoiceCall {
                status: from,
                ..inbound()
            };
            let created = create(&mut client, call).await;
            let result = update(&mut client, status_of(&created.uid, to), &[]).await;
            if from == to {
                assert_eq!(result.expect("it is so already"), created);
            } else if to == open {
                let reason = "ILLEGAL_STATUS_CHANGE";
                assert_refused(result, Code::FailedPrecondition, reason, &[]);
                let read = get(&mut client, &created.uid).await;
                assert_eq!(read.expect("it is there"), created);
            } else {
                let updated = result.expect("it is allowed");
                assert_eq!(updated.status, to);
                assert_eq!(updated.revision, created.revision + 1);
            }
        }
    }
}

#[tokio::test]
async fn a_closed_call_is_not_opened_by_replacement_or_upsert_either() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, reference()).await;
    let open = VoiceCall {
        status: VoiceCallStatus::IncomingCall.into(),
        ..reference()
    };
    let result = update(&mut client, open.clone(), &["*"]).await;
    assert_refused(
        result,
        Code::FailedPrecondition,
        "ILLEGAL_STATUS_CHANGE",
        &[],
    );
    let request = UpdateVoiceCallRequest {
        voice_call: Some(open),
        allow_missing: true,
        ..Default::default()
    };
    let result = client.update_voice_call(request).await;
    assert_refused(
        result,
        Code::FailedPrecondition,
        "ILLEGAL_STATUS_CHANGE",
        &[],
    );
    let read = get(&mut client, &created.uid).await;
    assert_eq!(read.expect("it is there"), created);
}

#[tokio::test]
async fn a_deleted_call_refuses_changes_until_it_is_undeleted() {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    let created = create(&mut client, reference()).await;
    let uid = created.uid.clone();
    delete(&mut client, &uid).await.expect("it is there");
    let before = contents(&database).await;
    // Also those that would change nothing.
    let results = [
        update(&mut client, reference(), &[]).await,
        update(&mut client, reference(), &["*"]).await,
        update(&mut client, status_of(&uid, 3), &[]).await,
        handle(&mut client, &uid, &uid).await,
        handle(&mut client, &uid, "another").await,
        delete(&mut client, &uid).await,
    ];
    for result in results {
        assert_refused(result, Code::FailedPrecondition, "CALL_DELETED", &[]);
    }
    let request = CreateVoiceCallRequest {
        voice_call: Some(reference()),
        ..Default::default()
    };
    let result = client.create_voice_call(request).await;
    assert_refused(result, Code::AlreadyExists, "CALL_ALREADY_EXISTS", &[]);
    assert_eq!(contents(&database).await, before);

    undelete(&mut client, &uid).await.expect("it is deleted");
    let updated = update(&mut client, status_of(&uid, 3), &[]).await;
    assert_eq!(updated.expect("it is live").status, 3);
    let result = undelete(&mut client, &uid).await;
    assert_refused(result, Code::AlreadyExists, "CALL_NOT_DELETED", &[]);
}

#[tokio::test]
async fn what_changes_nothing_keeps_revision_and_updated_at() {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    let created = create(&mut client, reference()).await;
    let before = contents(&database).await;
    let uid = created.uid.clone();
    let finer = VoiceCall {
        handled_at: reference().handled_at.map(|time| Timestamp {
            nanos: time.nanos + 999,
            ..time
        }),
        ..reference()
    };
    let only_uid = || VoiceCall {
        uid: uid.clone(),
        ..VoiceCall::default()
    };
    for (call, paths) in [
        (reference(), vec![]),
        (reference(), vec!["*"]),
        (reference(), vec!["duration", "client_uid"]),
        (only_uid(), vec![]),
        // Finer than a microsecond is no difference.
        (finer, vec![]),
    ] {
        let updated = update(&mut client, call, &paths).await;
        assert_eq!(updated.expect("it is fine"), created, "{paths:?}");
    }
    // By the same member of staff, at whatever time.
    let request = HandleVoiceCallRequest {
        uid: uid.clone(),
        handled_by_staff_uid: uid.clone(),
        handled_at: Some(Timestamp::default()),
        ..Default::default()
    };
    let handled = client.handle_voice_call(request).await;
    assert_eq!(
        handled.expect("it is fine").into_inner().voice_call,
        Some(created.clone())
    );
    let request = UpdateVoiceCallRequest {
        voice_call: Some(reference()),
        allow_missing: true,
        ..Default::default()
    };
    let upserted = client.update_voice_call(request).await;
    assert_eq!(
        upserted.expect("it is fine").into_inner().voice_call,
        Some(created)
    );
    assert_eq!(contents(&database).await, before);
}

#[tokio::test]
async fn an_incoming_call_may_be_handled() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, inbound()).await;
    assert_eq!(created.status(), VoiceCallStatus::IncomingCall);
    let handled = handle(&mut client, &created.uid, "ann").await;
    assert_eq!(
        handled.expect("it is allowed").status(),
        VoiceCallStatus::IncomingCall
    );
}

#[tokio::test]
async fn either_of_the_pair_of_handling_may_be_set_and_cleared_alone() {
    let server = Server::start().await;
    let mut client = server.client();
    let at = VoiceCall {
        handled_at: reference().handled_at,
        ..inbound()
    };
    let created = create(&mut client, at).await;
    assert_eq!(created.handled_at, reference().handled_at);
    assert_eq!(created.handled_by_staff_uid, None);
    let by = VoiceCall {
        uid: created.uid.clone(),
        handled_by_staff_uid: Some("ann".into()),
        ..VoiceCall::default()
    };
    let paths = ["handled_at", "handled_by_staff_uid"];
    let updated = update(&mut client, by, &paths).await.expect("it is fine");
    assert_eq!(updated.handled_at, None);
    assert_eq!(updated.handled_by_staff_uid.as_deref(), Some("ann"));
}

#[tokio::test]
async fn identity_and_creation_never_change() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, reference()).await;
    let other_time = VoiceCall {
        created_at: Some(Timestamp::default()),
        duration: Some(9),
        ..reference()
    };
    for (call, paths) in [(other_time.clone(), vec![]), (other_time, vec!["*"])] {
        let updated = update(&mut client, call, &paths).await.expect("it is fine");
        assert_eq!(updated.created_at, created.created_at);
        assert_eq!(updated.uid, created.uid);
    }
}

#[tokio::test]
async fn absent_stays_absent_through_every_change() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, inbound()).await;
    let uid = created.uid.clone();
    update(&mut client, status_of(&uid, 3), &[])
        .await
        .expect("fine");
    handle(&mut client, &uid, "ann").await.expect("it is there");
    delete(&mut client, &uid).await.expect("it is there");
    undelete(&mut client, &uid).await.expect("it is deleted");
    let clear = ["handled_at", "handled_by_staff_uid"];
    let only_uid = VoiceCall {
        uid: uid.clone(),
        ..VoiceCall::default()
    };
    let last = update(&mut client, only_uid, &clear).await.expect("fine");
    let expected = VoiceCall {
        status: 3,
        updated_at: last.updated_at,
        revision: 6,
        ..created
    };
    assert_eq!(last, expected);
    assert_eq!(get(&mut client, &uid).await.expect("there"), expected);
    let database = connect(&server.database_url).await;
    let sql = "SELECT count(*) FROM voice_calls WHERE num_nulls(duration, staff_uid, client_uid, \
        from_number, to_number, recording_url, call_summary, external_app_url, \
        handled_by_staff_uid, handled_at, deleted_at) = 11";
    let nulls: i64 = database.query_one(sql, &[]).await.expect("there").get(0);
    assert_eq!(nulls, 1);
}

#[tokio::test]
async fn a_status_that_a_newer_release_wrote_is_passed_on_and_stops_nothing() {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    let created = create(&mut client, reference()).await;
    let sql = "ALTER TYPE voice_call_status ADD VALUE 'voicemail'";
    database.batch_execute(sql).await.expect("it is new");
    let sql = "UPDATE voice_calls SET status = 'voicemail'";
    database.batch_execute(sql).await.expect("it is one");
    let read = get(&mut client, &created.uid).await.expect("it is there");
    assert_eq!(read.status, 0);
    let list = client
        .list_voice_calls(voicecall::proto::ListVoiceCallsRequest::default())
        .await;
    assert_eq!(list.expect("a page").into_inner().voice_calls, [read]);
    let patch = VoiceCall {
        uid: created.uid.clone(),
        duration: Some(1),
        ..VoiceCall::default()
    };
    let updated = update(&mut client, patch, &[]).await.expect("it is fine");
    assert_eq!((updated.status, updated.duration), (0, Some(1)));
    let sql = "SELECT status::text FROM voice_calls";
    let word: String = database.query_one(sql, &[]).await.expect("there").get(0);
    assert_eq!(word, "voicemail", "it survives our update");
    // An unknown status is closed.
    let open = status_of(&created.uid, VoiceCallStatus::IncomingCall.into());
    let result = update(&mut client, open, &[]).await;
    assert_refused(
        result,
        Code::FailedPrecondition,
        "ILLEGAL_STATUS_CHANGE",
        &[],
    );
}
