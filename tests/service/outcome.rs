//! What becomes of a write when the database refuses it, or goes away in the
//! middle of its commit.

use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Response, Status};
use voicecall::proto::{self, VoiceCall};

use crate::support::{
    Client, Server, assert_refused, create, inbound,
    ledger::check_ledger,
    postgres::{Cluster, Durability, connect, hold_commits, waiting_backend},
    request_id,
    server::settings,
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
