//! A read that nobody waits for any more ends in the database too, and the next one does not
//! wait behind it.

use std::time::Duration;

use tokio::time::timeout;
use voicecall::proto::{GetVoiceCallStatsRequest, ListVoiceCallsRequest};

use crate::support::{
    Server, eventually,
    postgres::{connect, running},
    server::settings,
};

/// Shorter than the deadline at which the database would end the statement.
const SOON: Duration = Duration::from_secs(10);

/// A server whose threads have one connection each for lists, and one for statistics.
async fn narrow_server() -> Server {
    let mut narrow = settings();
    narrow.store.reads.list_connections = 1;
    narrow.store.reads.statistics_connections = 1;
    Server::start_with(narrow).await
}

#[tokio::test]
async fn a_read_that_is_cancelled_ends_in_the_database() {
    let server = narrow_server().await;
    let blocker = connect(&server.database_url).await;
    let look = connect(&server.database_url).await;
    blocker
        .batch_execute("BEGIN; LOCK TABLE voice_calls IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("it is locked");
    let mut client = server.client();
    let read = client.get_voice_call_stats(GetVoiceCallStatsRequest::default());
    let abandoned = async {
        eventually("the statement waits for the table", async || {
            running(&look, "voicecall statistics", true).await == 1
        })
        .await;
    };
    tokio::select! {
        answer = read => panic!("the table is locked: {answer:?}"),
        () = abandoned => {}
    }
    let ended = eventually("the abandoned statement has ended", async || {
        running(&look, "voicecall statistics", true).await == 0
    });
    timeout(SOON, ended).await.expect("it is cancelled");
    blocker.batch_execute("COMMIT").await.expect("it is free");
    let again = client.get_voice_call_stats(GetVoiceCallStatsRequest::default());
    let next = timeout(SOON, again).await;
    next.expect("it waits for nobody").expect("it works");
}

#[tokio::test]
async fn reads_that_are_cancelled_again_and_again_harm_no_other() {
    let server = narrow_server().await;
    let mut clients = Vec::new();
    for _ in 0..32 {
        let mut client = server.client();
        clients.push(tokio::spawn(async move {
            for round in 0..20 {
                let list = client.list_voice_calls(ListVoiceCallsRequest::default());
                let _ = timeout(Duration::from_micros(200 * round), list).await;
            }
        }));
    }
    let mut client = server.client();
    for _ in 0..20 {
        let list = client.list_voice_calls(ListVoiceCallsRequest::default());
        let answer = timeout(SOON, list).await.expect("it has its turn");
        answer.expect("no cancel of another's read has hit it");
    }
    for client in clients {
        client.await.expect("it ends");
    }
}
