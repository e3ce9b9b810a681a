//! Two replicas on a database whose default isolation level is another one: what
//! orders commits and finds repeated requests needs read committed.

use tokio_util::task::AbortOnDropHandle;
use voicecall::proto::VoiceCall;

use super::send;
use crate::support::{
    Client, Server, create, inbound,
    ledger::check_ledger,
    postgres::{Cluster, connect, database_of},
    server::settings,
    writes::{create_of, update_of},
};

const CLIENTS: usize = 8;
const WRITES: usize = 40;

/// Two replicas over a new database with this default.
async fn replicas(level: &str) -> [Server; 2] {
    let url = Cluster::shared().await.database().await;
    let database = connect(&url).await;
    let name = database_of(&url);
    let sql = format!("ALTER DATABASE {name} SET default_transaction_isolation = '{level}'");
    database.batch_execute(&sql).await.expect("it is set");
    [
        Server::start_on(&url, settings()).await,
        Server::start_on(&url, settings()).await,
    ]
}

/// Updates one of a few calls and creates another, again and again.
async fn contend(mut client: Client, calls: Vec<VoiceCall>, seed: usize) -> Vec<VoiceCall> {
    let mut written = Vec::new();
    for n in 0..WRITES {
        let call = &calls[(n + seed) % calls.len()];
        let update = update_of(VoiceCall {
            duration: Some(i32::try_from(n * CLIENTS + seed).expect("small")),
            ..call.clone()
        });
        for write in [update, create_of(inbound())] {
            let answer = send(&mut client, &write).await;
            written.extend(answer.expect("a conflict is not the client's business"));
        }
    }
    written
}

async fn contention_is_no_error(level: &str) {
    let replicas = replicas(level).await;
    let mut calls = Vec::new();
    for _ in 0..2 {
        calls.push(create(&mut replicas[0].client(), inbound()).await);
    }
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let client = replicas[n % 2].client();
            AbortOnDropHandle::new(tokio::spawn(contend(client, calls.clone(), n)))
        })
        .collect();
    let mut written = Vec::new();
    for client in clients {
        written.extend(client.await.expect("no client panics"));
    }
    check_ledger(&connect(&replicas[0].database_url).await, &written).await;
}

async fn a_request_at_two_replicas_is_one(level: &str) {
    let replicas = replicas(level).await;
    let [mut one, mut other] = [replicas[0].client(), replicas[1].client()];
    let mut written = Vec::new();
    for _ in 0..60 {
        let write = create_of(inbound());
        let (a, b) = tokio::join!(send(&mut one, &write), send(&mut other, &write));
        let (a, b) = (a.expect("it is written"), b.expect("it is written"));
        assert_eq!(a, b, "one request, one call");
        written.extend(a);
    }
    let head = check_ledger(&connect(&replicas[0].database_url).await, &written).await;
    assert_eq!(head, 60);
}

#[tokio::test]
async fn contention_is_no_error_where_repeatable_read_is_the_default() {
    contention_is_no_error("repeatable read").await;
}

#[tokio::test]
async fn contention_is_no_error_where_serializable_is_the_default() {
    contention_is_no_error("serializable").await;
}

#[tokio::test]
async fn a_request_at_two_replicas_at_once_is_one_where_repeatable_read_is_the_default() {
    a_request_at_two_replicas_is_one("repeatable read").await;
}

#[tokio::test]
async fn a_request_at_two_replicas_at_once_is_one_where_serializable_is_the_default() {
    a_request_at_two_replicas_is_one("serializable").await;
}
