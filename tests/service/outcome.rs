//! What becomes of a write when the database refuses it, or goes away in the
//! middle of its commit.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Response, Status};
use voicecall::proto::{self, VoiceCall};

use crate::support::{
    Client, Server, assert_refused, create, inbound,
    ledger::check_ledger,
    postgres::{Cluster, Durability, connect, hold_commits, waiting_backend},
    request_id,
    server::settings,
    writes::update_of,
};

type Created = Result<Response<proto::CreateVoiceCallResponse>, Status>;

/// Sends a create, and goes on.
fn send(client: &Client, voice_call: VoiceCall, request_id: &str) -> AbortOnDropHandle<Created> {
    let mut client = client.clone();
    let request = proto::CreateVoiceCallRequest {
        voice_call: Some(voice_call),
        request_id: request_id.into(),
        ..Default::default()
    };
    AbortOnDropHandle::new(tokio::spawn(async move {
        client.create_voice_call(request).await
    }))
}

#[tokio::test]
async fn a_write_that_the_database_refuses_fails_alone() {
    let server = Server::start().await;
    let database = connect(&server.database_url).await;
    let rule = "ALTER TABLE voice_calls ADD CHECK (staff_uid <> 'poison')";
    database
        .batch_execute(rule)
        .await
        .expect("the table is empty");
    // What is sent while commits wait becomes one batch.
    hold_commits(&database).await;
    let look = connect(&server.database_url).await;
    let first = send(&server.client(), inbound(), "");
    waiting_backend(&look).await;
    let sent: Vec<_> = (0..20)
        .map(|n| {
            let staff_uid = if n == 7 { "poison" } else { "staff" };
            let call = VoiceCall {
                staff_uid: Some(staff_uid.into()),
                ..inbound()
            };
            (n, send(&server.client(), call, ""))
        })
        .collect();
    database.batch_execute("COMMIT").await.expect("it ends");
    first.await.expect("no panic").expect("it was alone");
    for (n, answer) in sent {
        let answer = answer.await.expect("no panic");
        if n == 7 {
            assert_refused(answer, Code::Internal, "INTERNAL", &[]);
        } else {
            answer.expect("the others are written");
        }
    }
    assert_eq!(check_ledger(&look, &[]).await, 20);
}

#[tokio::test]
async fn a_commit_whose_connection_breaks_is_found_out_and_repeated() {
    let server = Server::start().await;
    let database = connect(&server.database_url).await;
    let look = connect(&server.database_url).await;
    hold_commits(&database).await;
    let unnamed = send(&server.client(), inbound(), "");
    let pid = waiting_backend(&look).await;
    look.execute("SELECT pg_terminate_backend($1)", &[&pid])
        .await
        .expect("it may");
    database.batch_execute("COMMIT").await.expect("it ends");
    let call = unnamed
        .await
        .expect("no panic")
        .expect("it was not committed, so it is repeated");
    let call = call.into_inner().voice_call.expect("it is answered");
    assert_eq!(check_ledger(&look, &[call]).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_outcome_is_unknown_is_not_guessed() {
    let cluster = Cluster::start(Durability::Durable);
    let url = cluster.database().await;
    let server = Server::start_on(&url, settings()).await;
    let database = connect(&url).await;
    let look = connect(&url).await;
    hold_commits(&database).await;
    let name = request_id();
    let named = send(&server.client(), inbound(), &name);
    waiting_backend(&look).await;
    tokio::task::block_in_place(|| cluster.kill());
    let answer = named.await.expect("no panic");
    assert_refused(answer, Code::Unavailable, "OUTCOME_UNKNOWN", &[]);
    tokio::task::block_in_place(|| cluster.restart());
    let mut client = server.client();
    let retried = loop {
        match send(&client, inbound(), &name).await.expect("no panic") {
            Err(status) if status.code() == Code::Unavailable => tokio::task::yield_now().await,
            answer => break answer.expect("the same request_id is safe"),
        }
    };
    let retried = retried.into_inner().voice_call.expect("it is answered");
    let another = create(&mut client, inbound()).await;
    let head = check_ledger(&connect(&url).await, &[retried, another]).await;
    assert_eq!(head, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_is_looked_for_no_longer_than_8_seconds() {
    /// What the session of a commit has for a response, and the look for the outcome.
    const LONGEST: Duration = Duration::from_secs(6 + 8);
    let cluster = Cluster::start(Durability::Fast);
    let url = cluster.database().await;
    let server = Server::start_on(&url, settings()).await;
    let database = connect(&url).await;
    hold_commits(&database).await;
    let sent_at = Instant::now();
    let sent = send(&server.client(), inbound(), "");
    waiting_backend(&connect(&url).await).await;
    tokio::task::block_in_place(|| cluster.pause());
    let answer = sent.await.expect("no panic");
    let waited = sent_at.elapsed();
    tokio::task::block_in_place(|| cluster.resume());
    assert_refused(answer, Code::Unknown, "OUTCOME_UNKNOWN", &[]);
    let longest = LONGEST + Duration::from_secs(1);
    assert!(waited < longest, "answered after {waited:?}");
}

#[tokio::test]
async fn writes_to_a_table_that_is_locked_too_long_are_refused_and_can_be_retried() {
    let server = Server::start().await;
    let database = connect(&server.database_url).await;
    let mut client = server.client();
    let (one, other) = (
        create(&mut client, inbound()).await,
        create(&mut client, inbound()).await,
    );
    let longer = |call: VoiceCall| {
        update_of(VoiceCall {
            duration: Some(7),
            ..call
        })
    };
    let writes = [longer(one), longer(other)];
    // As VACUUM FULL does.
    let lock = "BEGIN; LOCK TABLE voice_calls IN ACCESS EXCLUSIVE MODE";
    database.batch_execute(lock).await.expect("it is free");
    let sent = writes.clone().map(|write| {
        let mut client = server.client();
        async move { write.send(&mut client).await }
    });
    for answer in join_all(sent).await {
        assert_refused(answer, Code::Unavailable, "DATABASE_UNAVAILABLE", &[]);
    }
    database.batch_execute("COMMIT").await.expect("it ends");
    let mut written = Vec::new();
    for write in writes {
        let calls = write.send(&mut client).await;
        written.extend(calls.expect("the table is free"));
    }
    assert_eq!(check_ledger(&database, &written).await, 4);
}

#[tokio::test]
async fn commits_that_wait_for_a_lock_too_long_are_refused_and_can_be_retried() {
    let server = Server::start().await;
    let database = connect(&server.database_url).await;
    hold_commits(&database).await;
    let answer = send(&server.client(), inbound(), "")
        .await
        .expect("no panic");
    assert_refused(answer, Code::Unavailable, "DATABASE_UNAVAILABLE", &[]);
    database.batch_execute("COMMIT").await.expect("it ends");
    create(&mut server.client(), inbound()).await;
    assert_eq!(
        check_ledger(&connect(&server.database_url).await, &[]).await,
        1
    );
}
