//! The table of errors: each condition has its code, its reason, its metadata
//! and, where a retry helps, a delay before it.

use tonic::Code;
use voicecall::proto;

use crate::support::{
    Server, assert_refused, create, delete, eventually, get, handle, inbound, metadata,
    postgres::{connect, contents, running},
    raw::{Raw, frame},
    reference, request_id, retry_after,
    server::settings,
    undelete, update,
};
use proto::{CreateVoiceCallRequest, ListVoiceCallsRequest, VoiceCall, VoiceCallStatus};

/// The lock that orders all commits: every writer waits while it is held.
const HOLD_COMMITS: &str = "SELECT pg_advisory_lock(8642101, 1)";
const RELEASE_COMMITS: &str = "SELECT pg_advisory_unlock(8642101, 1)";

fn create_request(request_id: String) -> CreateVoiceCallRequest {
    CreateVoiceCallRequest {
        voice_call: Some(inbound()),
        request_id,
        ..Default::default()
    }
}

#[tokio::test]
async fn what_the_state_of_a_call_forbids_is_refused_with_its_uid() {
    let server = Server::start().await;
    let mut client = server.client();
    let uid = reference().uid;
    let call = create(&mut client, reference()).await;
    let open = VoiceCall {
        uid: uid.clone(),
        status: VoiceCallStatus::IncomingCall.into(),
        ..VoiceCall::default()
    };
    let mut seen = Vec::new();
    seen.push(update(&mut client, open, &[]).await);
    seen.push(handle(&mut client, &uid, "another").await);
    seen.push(undelete(&mut client, &uid).await);
    delete(&mut client, &uid).await.expect("it is there");
    seen.push(delete(&mut client, &uid).await);
    seen.push(handle(&mut client, &uid, &uid).await);
    seen.push(update(&mut client, call, &[]).await);
    let expected = [
        (Code::FailedPrecondition, "ILLEGAL_STATUS_CHANGE"),
        (Code::FailedPrecondition, "ALREADY_HANDLED"),
        (Code::AlreadyExists, "CALL_NOT_DELETED"),
        (Code::FailedPrecondition, "CALL_DELETED"),
        (Code::FailedPrecondition, "CALL_DELETED"),
        (Code::FailedPrecondition, "CALL_DELETED"),
    ];
    for (result, (code, reason)) in seen.into_iter().zip(expected) {
        let status = result.as_ref().expect_err(reason);
        let metadata = metadata(status);
        assert_eq!(metadata["uid"], uid);
        let word = metadata.get("status").map(String::as_str);
        let expected = (reason == "ILLEGAL_STATUS_CHANGE").then_some("answered by staff");
        assert_eq!(word, expected);
        assert_eq!(retry_after(status), None);
        assert_refused(result, code, reason, &[]);
    }
}

#[tokio::test]
async fn every_answer_has_an_id_of_its_own() {
    let server = Server::start().await;
    let mut raw = Raw::connect(&server.endpoint).await;
    let mut ids = std::collections::HashSet::new();
    for method in [
        "ListVoiceCalls",
        "GetVoiceCall",
        "MakeCoffee",
        "/grpc.health.v1.Health/Check",
    ] {
        let answer = raw.post(method, &[], frame(&[])).await;
        let id = answer.headers["x-request-id"].to_str().expect("ASCII");
        assert!(ids.insert(id.to_owned()), "{id} twice");
    }
}

#[tokio::test]
async fn more_requests_than_the_server_takes_on_are_overload() {
    let mut few = settings();
    few.api.max_concurrent_requests = 2;
    let server = Server::start_with(few).await;
    let blocker = connect(&server.database_url).await;
    blocker
        .batch_execute(HOLD_COMMITS)
        .await
        .expect("it is held");
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut client = server.client();
            tokio::spawn(async move {
                client
                    .create_voice_call(create_request(String::new()))
                    .await
            })
        })
        .collect();
    let looker = connect(&server.database_url).await;
    eventually("a request is refused", async || {
        let result = get(&mut server.client(), &reference().uid).await;
        let status = result.expect_err("there is none");
        if status.code() == Code::NotFound {
            return false;
        }
        assert!(retry_after(&status).is_some());
        let result: Result<(), _> = Err(status);
        assert_refused(result, Code::ResourceExhausted, "OVERLOADED", &[]);
        true
    })
    .await;
    let health = Raw::connect(&server.endpoint)
        .await
        .post("/grpc.health.v1.Health/Check", &[], frame(&[]))
        .await;
    assert_eq!(health.status.code(), Code::Ok, "health answers under load");
    blocker
        .batch_execute(RELEASE_COMMITS)
        .await
        .expect("it is free");
    for request in waiting {
        request.await.expect("no panic").expect("it was taken on");
    }
    assert_eq!(contents(&looker).await.calls, 2);
}

#[tokio::test]
async fn more_writes_than_the_queue_holds_are_overload_and_the_others_are_done() {
    let mut short = settings();
    short.store.write_queue = 1;
    let server = Server::start_with(short).await;
    let blocker = connect(&server.database_url).await;
    blocker
        .batch_execute(HOLD_COMMITS)
        .await
        .expect("it is held");
    let looker = connect(&server.database_url).await;
    let mut waiting = Vec::new();
    let mut refused = 0;
    eventually("a write is refused", async || {
        let mut client = server.client();
        waiting.push(tokio::spawn(async move {
            client
                .create_voice_call(create_request(String::new()))
                .await
        }));
        let finished = waiting.iter().position(|one| one.is_finished());
        if let Some(place) = finished {
            let result = waiting.swap_remove(place).await.expect("no panic");
            let status = result.as_ref().expect_err("nothing can be committed");
            assert!(retry_after(status).is_some());
            assert_refused(result, Code::ResourceExhausted, "OVERLOADED", &[]);
            refused += 1;
        }
        refused > 0
    })
    .await;
    blocker
        .batch_execute(RELEASE_COMMITS)
        .await
        .expect("it is free");
    let mut created = 0;
    for request in waiting {
        match request.await.expect("no panic") {
            Ok(_) => created += 1,
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
        }
    }
    assert!(created > 0);
    assert_eq!(contents(&looker).await.calls, created);
}

#[tokio::test]
async fn a_write_past_its_deadline_says_that_it_may_have_been_applied() {
    let server = Server::start().await;
    let blocker = connect(&server.database_url).await;
    let looker = connect(&server.database_url).await;
    blocker
        .batch_execute(HOLD_COMMITS)
        .await
        .expect("it is held");
    let mut raw = Raw::connect(&server.endpoint).await;
    let deadline = [("grpc-timeout", "200m")];
    let answer = raw
        .call("CreateVoiceCall", &deadline, &create_request(String::new()))
        .await;
    assert!(answer.status.message().contains("may have been applied"));
    let result: Result<(), _> = Err(answer.status);
    assert_refused(result, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", &[]);
    blocker
        .batch_execute(RELEASE_COMMITS)
        .await
        .expect("it is free");
    // It was taken from the queue, so it is committed all the same.
    eventually("it is committed", async || {
        contents(&looker).await.calls == 1
    })
    .await;
}

#[tokio::test]
async fn a_write_whose_caller_has_gone_before_it_was_taken_is_dropped() {
    let server = Server::start().await;
    let blocker = connect(&server.database_url).await;
    let looker = connect(&server.database_url).await;
    blocker
        .batch_execute(HOLD_COMMITS)
        .await
        .expect("it is held");
    let mut client = server.client();
    let taken = tokio::spawn(async move {
        client
            .create_voice_call(create_request(String::new()))
            .await
    });
    let blocked = async || running(&looker, "voicecall writer", true).await == 1;
    eventually("a write is taken", blocked).await;
    let mut raw = Raw::connect(&server.endpoint).await;
    let deadline = [("grpc-timeout", "200m")];
    let withdrawn = raw
        .call("CreateVoiceCall", &deadline, &create_request(String::new()))
        .await;
    assert_eq!(withdrawn.status.code(), Code::DeadlineExceeded);
    blocker
        .batch_execute(RELEASE_COMMITS)
        .await
        .expect("it is free");
    taken.await.expect("no panic").expect("it is committed");
    create(&mut server.client(), inbound()).await;
    assert_eq!(contents(&looker).await.calls, 2);
}

/// Ends the writer's connection while its batch waits to be committed.
async fn cut_the_writer(looker: &tokio_postgres::Client) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE application_name = 'voicecall writer' AND datname = current_database() \
            AND wait_event_type = 'Lock'";
    looker.batch_execute(sql).await.expect("it is told");
}

#[tokio::test]
async fn a_commit_whose_outcome_cannot_be_found_out_is_reported_as_unknown() {
    let server = Server::start().await;
    let mut client = server.client();
    for _ in 0..3 {
        create(&mut client, inbound()).await;
    }
    for (request_id, code) in [
        (request_id(), Code::Unavailable),
        (String::new(), Code::Unknown),
    ] {
        let blocker = connect(&server.database_url).await;
        let looker = connect(&server.database_url).await;
        blocker
            .batch_execute(HOLD_COMMITS)
            .await
            .expect("it is held");
        // The database loses what the log held when the writer last saw it, as a bad
        // failover does.
        let lose = "DELETE FROM voice_call_changes; DELETE FROM voice_call_batches";
        blocker.batch_execute(lose).await.expect("it is lost");
        let mut client = server.client();
        let has_id = !request_id.is_empty();
        let writing =
            tokio::spawn(async move { client.create_voice_call(create_request(request_id)).await });
        let blocked = async || running(&looker, "voicecall writer", true).await == 1;
        eventually("the batch waits", blocked).await;
        cut_the_writer(&looker).await;
        blocker
            .batch_execute(RELEASE_COMMITS)
            .await
            .expect("it is free");
        let result = writing.await.expect("no panic");
        let status = result.as_ref().expect_err("nobody can say");
        assert_eq!(retry_after(status).is_some(), has_id);
        assert_refused(result, code, "OUTCOME_UNKNOWN", &[]);
    }
}

#[tokio::test]
async fn a_bug_is_internal_and_reveals_no_sql() {
    let server = Server::start().await;
    let mut client = server.client();
    create(&mut client, reference()).await;
    let database = connect(&server.database_url).await;
    let sql = "ALTER TABLE voice_calls RENAME COLUMN from_number TO from_elsewhere";
    database.batch_execute(sql).await.expect("it is done");
    let list = client.list_voice_calls(ListVoiceCallsRequest::default());
    let list = list.await.map(drop);
    let read = get(&mut client, &reference().uid).await.map(drop);
    let refused = client.create_voice_call(create_request(String::new()));
    let refused = refused.await.map(drop);
    let sql = "DROP FUNCTION commit_batch_v1";
    database.batch_execute(sql).await.expect("it is done");
    let failed = client.create_voice_call(create_request(request_id()));
    let failed = failed.await.map(drop);
    for result in [list, read, refused, failed] {
        let status = result.as_ref().expect_err("the schema is broken");
        let shown = format!("{status:?}");
        for word in ["from_", "voice_calls", "commit_batch"] {
            assert!(!shown.contains(word), "{shown}");
        }
        assert!(status.message().contains("x-request-id"), "{shown}");
        assert_refused(result, Code::Internal, "INTERNAL", &[]);
    }
}

#[tokio::test]
async fn a_read_whose_backend_is_ended_is_run_again_once() {
    let server = Server::start().await;
    create(&mut server.client(), reference()).await;
    let blocker = connect(&server.database_url).await;
    let looker = connect(&server.database_url).await;
    let lock = "BEGIN; LOCK TABLE voice_calls IN ACCESS EXCLUSIVE MODE";
    for application in ["voicecall lists", "voicecall reader"] {
        blocker.batch_execute(lock).await.expect("it is locked");
        let mut client = server.client();
        let reading = tokio::spawn(async move {
            if application == "voicecall lists" {
                let list = client.list_voice_calls(ListVoiceCallsRequest::default());
                list.await.map(drop)
            } else {
                get(&mut client, &reference().uid).await.map(drop)
            }
        });
        // What waits then is another backend.
        for _ in 0..2 {
            let sql = format!(
                "SELECT pid FROM pg_stat_activity WHERE application_name = '{application}' \
                 AND datname = current_database() AND wait_event_type = 'Lock'"
            );
            let waiting = async || looker.query(&sql, &[]).await.expect("it answers").len() == 1;
            eventually("the read waits", waiting).await;
            let pid: i32 = looker.query_one(&sql, &[]).await.expect("it waits").get(0);
            let end = "SELECT pg_terminate_backend($1, 5000)";
            looker.execute(end, &[&pid]).await.expect("it is told");
        }
        let result = reading.await.expect("no panic");
        let status = result.as_ref().expect_err("its backend is gone");
        assert!(retry_after(status).is_some());
        assert_refused(result, Code::Unavailable, "DATABASE_UNAVAILABLE", &[]);
        blocker.batch_execute("COMMIT").await.expect("it is free");
        eventually("it is back", async || {
            get(&mut server.client(), &reference().uid).await.is_ok()
        })
        .await;
    }
}
