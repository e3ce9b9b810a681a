//! Watches across replicas: one sends what another writes, and continues where a drained
//! one stopped; and the streams of a database that lost commits in a failover.

use tonic::Code;
use voicecall::proto::{
    VoiceCallEventType as Type, VoiceCallStatus, watch_voice_calls_request::Start,
    watch_voice_calls_response::Message,
};

use crate::support::{
    Server, assert_refused, create, inbound,
    postgres::connect,
    watcher::{Watcher, from, live, outline, snapshot},
};

#[tokio::test]
async fn writes_of_another_replica_arrive_in_order_with_local_ones() {
    let server = Server::start().await;
    let replica = Server::start_on(&server.database_url, crate::support::server::settings()).await;
    let (mut here, mut there) = (server.client(), replica.client());
    let mut watcher = Watcher::start(&mut here, from(live()))
        .await
        .expect("it starts");
    for _ in 0..20 {
        create(&mut here, inbound()).await;
        create(&mut there, inbound()).await;
    }
    let expected: Vec<_> = (1..=40).map(|revision| (Type::Entered, revision)).collect();
    assert_eq!(outline(&watcher.until(40).await), expected);
}

#[tokio::test]
async fn a_drained_server_ends_its_watches_with_a_checkpoint_and_another_continues() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut watcher = Watcher::start(&mut client, from(live()))
        .await
        .expect("it starts");
    create(&mut client, inbound()).await;
    watcher.until(1).await;
    let database_url = server.database_url.clone();
    server.stop().await;
    let status = watcher.end().await;
    assert_refused(Err::<(), _>(status), Code::Unavailable, "DRAINING", &[]);
    let replica = Server::start_on(&database_url, crate::support::server::settings()).await;
    let mut client = replica.client();
    create(&mut client, inbound()).await;
    let start = Start::ResumeToken(watcher.token);
    let mut resumed = Watcher::start(&mut client, from(start))
        .await
        .expect("it starts");
    assert_eq!(outline(&resumed.until(2).await), [(Type::Entered, 2)]);
}

#[tokio::test]
async fn a_database_set_back_and_overtaken_resets_streams_and_tokens() {
    let server = Server::start().await;
    let mut client = server.client();
    let mut watcher = Watcher::start(&mut client, from(live()))
        .await
        .expect("it starts");
    for _ in 0..3 {
        create(&mut client, inbound()).await;
    }
    watcher.until(3).await;
    let token = watcher.token.clone();
    // What a failover does that loses the last two commits.
    let database = connect(&server.database_url).await;
    database
        .batch_execute(
            "BEGIN; SELECT pg_advisory_xact_lock(8642101, 1); \
             DELETE FROM voice_calls WHERE revision > 1; \
             DELETE FROM voice_call_changes WHERE revision > 1; \
             DELETE FROM voice_call_batches WHERE last_revision > 1; COMMIT",
        )
        .await
        .expect("allowed");
    for _ in 0..5 {
        create(&mut client, inbound()).await;
    }
    let status = watcher.end().await;
    assert_refused(
        Err::<(), _>(status),
        Code::FailedPrecondition,
        "FEED_RESET",
        &[],
    );
    let resumed = Watcher::start(&mut client, from(Start::ResumeToken(token))).await;
    assert_refused(
        resumed.map(|_| ()),
        Code::FailedPrecondition,
        "FEED_RESET",
        &[],
    );
    let mut anew = Watcher::start(&mut client, from(snapshot()))
        .await
        .expect("it starts");
    let (calls, revision) = anew.snapshot().await;
    assert_eq!((calls.len(), revision), (6, 6));
    let closed = VoiceCallStatus::Missed;
    assert!(calls.iter().all(|call| call.status() != closed));
    create(&mut client, inbound()).await;
    assert!(matches!(
        anew.next().await.expect("it goes on"),
        Message::EventBatch(_) | Message::Checkpoint(_)
    ));
}
