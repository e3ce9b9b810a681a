//! Request ids: a repeat answers what the first one answered, and is not applied
//! again.

use std::collections::HashSet;

use tonic::Code;
use voicecall::proto::{
    BatchCreateVoiceCallsRequest, CreateVoiceCallRequest, DeleteVoiceCallRequest,
    UndeleteVoiceCallRequest, UpdateVoiceCallRequest, VoiceCall,
};

use crate::support::{
    Server, assert_refused, create, delete, get, inbound,
    postgres::{connect, contents},
    reference, request_id,
    server::settings,
    undelete, update,
    writes::{Write, batch_of, create_of, delete_of, handle_of, undelete_of, update_of},
};

/// One write of each kind that changes something, and those that change
/// nothing; each fits the state that the ones before it leave.
fn life_of_a_call() -> Vec<Write> {
    let uid = reference().uid;
    let longer = VoiceCall {
        uid: uid.clone(),
        duration: Some(500),
        ..VoiceCall::default()
    };
    let absent = "00000000-0000-7000-8000-000000000000";
    vec![
        create_of(reference()),
        create_of(inbound()),
        batch_of(vec![inbound(), inbound(), inbound()]),
        update_of(longer.clone()),
        // Nothing changes.
        update_of(longer),
        handle_of(&uid, &uid),
        delete_of(absent, true),
        delete_of(&uid, false),
        // Nothing changes.
        delete_of(&uid, true),
        undelete_of(&uid),
        Write::Update(UpdateVoiceCallRequest {
            voice_call: Some(VoiceCall {
                uid: request_id(),
                ..inbound()
            }),
            allow_missing: true,
            request_id: request_id(),
            ..Default::default()
        }),
    ]
}

#[tokio::test]
async fn a_repeat_answers_the_same_on_every_server_and_after_a_restart() {
    let server = Server::start().await;
    let url = server.database_url.clone();
    let mut client = server.client();
    let mut answers = Vec::new();
    for write in life_of_a_call() {
        let answer = write.clone().send(&mut client).await;
        let answer = answer.unwrap_or_else(|status| panic!("{write:?}: {status}"));
        let repeat = write.clone().send(&mut client).await;
        assert_eq!(repeat.expect("the same"), answer, "{write:?}");
        answers.push((write, answer));
    }
    let database = connect(&url).await;
    let before = contents(&database).await;
    let other = Server::start_on(&url, settings()).await;
    drop(client);
    server.stop().await;
    let restarted = Server::start_on(&url, settings()).await;
    // The calls are far from the states of the first answers by now.
    for server in [&other, &restarted] {
        for (write, answer) in &answers {
            let repeat = write.clone().send(&mut server.client()).await;
            assert_eq!(&repeat.expect("the same"), answer, "{write:?}");
        }
    }
    assert_eq!(contents(&database).await, before);
}

#[tokio::test]
async fn a_no_op_is_answered_with_the_state_that_it_met() {
    let server = Server::start().await;
    let mut client = server.client();
    let created = create(&mut client, reference()).await;
    let uid = created.uid.clone();
    let same = update_of(VoiceCall {
        uid: uid.clone(),
        duration: reference().duration,
        ..VoiceCall::default()
    });
    assert_eq!(
        same.clone().send(&mut client).await.expect("fine"),
        std::slice::from_ref(&created)
    );
    let absent = "00000000-0000-7000-8000-000000000000";
    let nothing = delete_of(absent, true);
    assert_eq!(nothing.clone().send(&mut client).await.expect("fine"), []);

    let longer = VoiceCall {
        uid: uid.clone(),
        duration: Some(999),
        client_uid: Some(String::new()),
        ..VoiceCall::default()
    };
    update(&mut client, longer, &[]).await.expect("it is fine");
    delete(&mut client, &uid).await.expect("it is there");
    undelete(&mut client, &uid).await.expect("it is there");
    let call = VoiceCall {
        uid: absent.into(),
        ..inbound()
    };
    create(&mut client, call).await;

    let before = get(&mut client, &uid).await.expect("it is there");
    assert_eq!(same.send(&mut client).await.expect("the same"), [created]);
    assert_eq!(nothing.send(&mut client).await.expect("the same"), []);
    assert_eq!(get(&mut client, &uid).await.expect("it is there"), before);
    assert_eq!(
        get(&mut client, absent).await.expect("still").deleted_at,
        None
    );
}

#[tokio::test]
async fn an_id_that_was_used_for_another_request_is_refused() {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    create(&mut client, reference()).await;
    let uid = reference().uid;
    let id = request_id();
    let request = CreateVoiceCallRequest {
        voice_call: Some(inbound()),
        request_id: id.clone(),
        ..Default::default()
    };
    client
        .create_voice_call(request.clone())
        .await
        .expect("it is new");
    let before = contents(&database).await;
    let other_call = CreateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            duration: Some(1),
            ..inbound()
        }),
        request_id: id.clone(),
        ..Default::default()
    };
    for write in [
        Write::Create(other_call),
        Write::BatchCreate(BatchCreateVoiceCallsRequest {
            voice_calls: vec![inbound()],
            request_id: id.clone(),
        }),
        Write::Delete(DeleteVoiceCallRequest {
            uid: uid.clone(),
            request_id: id.to_uppercase(),
            ..Default::default()
        }),
        // What would be refused anyway.
        Write::Undelete(UndeleteVoiceCallRequest {
            uid,
            request_id: id.clone(),
            ..Default::default()
        }),
    ] {
        let result = write.send(&mut client).await;
        assert_refused(result, Code::InvalidArgument, "REQUEST_ID_REUSED", &[]);
    }
    assert_eq!(contents(&database).await, before);
    // The id in another letter case is the same id.
    let repeat = CreateVoiceCallRequest {
        request_id: id.to_uppercase(),
        ..request
    };
    client
        .create_voice_call(repeat)
        .await
        .expect("it is a repeat");
    assert_eq!(contents(&database).await, before);
}

#[tokio::test]
async fn what_was_refused_or_only_tried_is_not_recorded() {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    let uid = reference().uid;
    let write = handle_of(&uid, "ann");
    let result = write.clone().send(&mut client).await;
    assert_refused(result, Code::NotFound, "CALL_NOT_FOUND", &[]);
    let call = VoiceCall {
        uid: uid.clone(),
        ..inbound()
    };
    create(&mut client, call).await;
    let handled = write.send(&mut client).await.expect("it is there now");
    assert_eq!(handled[0].handled_by_staff_uid.as_deref(), Some("ann"));

    let before = contents(&database).await;
    let tried = CreateVoiceCallRequest {
        voice_call: Some(inbound()),
        request_id: request_id(),
        validate_only: true,
    };
    client
        .create_voice_call(tried.clone())
        .await
        .expect("it is fine");
    let update = UpdateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            uid,
            duration: Some(3),
            ..VoiceCall::default()
        }),
        request_id: request_id(),
        validate_only: true,
        ..Default::default()
    };
    client
        .update_voice_call(update.clone())
        .await
        .expect("it is fine");
    assert_eq!(contents(&database).await, before);
    let real = CreateVoiceCallRequest {
        validate_only: false,
        ..tried
    };
    client.create_voice_call(real).await.expect("it is new");
    let real = UpdateVoiceCallRequest {
        validate_only: false,
        ..update
    };
    client.update_voice_call(real).await.expect("it is new");
    assert_eq!(contents(&database).await.head, before.head + 2);
}

#[tokio::test]
async fn a_recorded_request_answers_even_where_it_would_be_refused_now() {
    let server = Server::start().await;
    let mut client = server.client();
    let write = create_of(reference());
    let created = write.clone().send(&mut client).await.expect("it is new");
    delete(&mut client, &reference().uid)
        .await
        .expect("it is there");
    // Deleted, and the uid is taken: a fresh create would be ALREADY_EXISTS.
    assert_eq!(write.send(&mut client).await.expect("a repeat"), created);
}

#[tokio::test]
async fn racing_repeats_on_two_servers_are_applied_once_and_answer_the_same() {
    let first = Server::start().await;
    let second = Server::start_on(&first.database_url, settings()).await;
    let servers = [first, second];
    let database = connect(&servers[0].database_url).await;
    let mut expected_changes = 0;
    for (write, changes) in [
        (create_of(reference()), 1),
        (create_of(inbound()), 1),
        (batch_of(vec![inbound(); 20]), 20),
        (
            handle_of(&reference().uid, "d290f1ee-6c54-4b01-90e6-d701748f0851"),
            0,
        ),
        (delete_of(&reference().uid, false), 1),
        (undelete_of(&reference().uid), 1),
    ] {
        let attempts = (0..16).map(|place| {
            let mut client = servers[place % 2].client();
            let write = write.clone();
            tokio::spawn(async move { write.send(&mut client).await })
        });
        let attempts: Vec<_> = attempts.collect();
        let mut answers = Vec::new();
        for attempt in attempts {
            let answer = attempt.await.expect("no panic");
            answers.push(answer.unwrap_or_else(|status| panic!("{write:?}: {status}")));
        }
        let uids: HashSet<_> = answers.iter().map(|calls| calls[0].uid.clone()).collect();
        assert_eq!(uids.len(), 1, "{write:?}");
        assert!(
            answers.iter().all(|answer| *answer == answers[0]),
            "{write:?}"
        );
        expected_changes += changes;
        assert_eq!(
            contents(&database).await.changes,
            expected_changes,
            "{write:?}"
        );
    }
}

#[tokio::test]
async fn after_24_hours_an_id_is_new_again() {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    let write = create_of(inbound());
    let first = write.clone().send(&mut client).await.expect("it is new");
    // Not yet.
    age_records(&database, "23 hours 59 minutes").await;
    assert_eq!(
        write.clone().send(&mut client).await.expect("a repeat"),
        first
    );
    age_records(&database, "2 minutes").await;
    let second = write
        .clone()
        .send(&mut client)
        .await
        .expect("it is new again");
    assert_ne!(second[0].uid, first[0].uid);
    assert_eq!(write.send(&mut client).await.expect("a repeat"), second);
}

/// Makes the records older, which only time does otherwise. Their partitions
/// have no room for the past, so it is made.
async fn age_records(database: &tokio_postgres::Client, interval: &str) {
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS past PARTITION OF idempotency_records DEFAULT;
        UPDATE idempotency_records SET recorded_at = recorded_at - interval '{interval}'"
    );
    database.batch_execute(&sql).await.expect("it is done");
}
