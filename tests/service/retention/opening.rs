//! Databases that the service starts on although something is unusual, and one that it
//! refuses with the reason.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::fill;
use crate::support::{
    Server, create, inbound,
    postgres::{Cluster, connect, database_of, running},
    server::settings,
    writes::create_of,
};

/// Longer than any start takes that succeeds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a server on this database, which must succeed.
async fn start(url: &str, settings: voicecall::server::Settings) -> Server {
    let (server, ready) = Server::launch(url, settings).await;
    let ready = timeout(PATIENCE, ready).await;
    ready.expect("it starts in time").expect("it starts");
    server
}

#[tokio::test]
async fn a_server_starts_and_creates_while_upkeep_s_lock_is_held_elsewhere() {
    let url = Cluster::shared().await.database().await;
    let other = connect(&url).await;
    let lock = "SELECT pg_advisory_lock(8642101, 3)";
    other.batch_execute(lock).await.expect("it is free");
    let server = start(&url, settings()).await;
    let mut client = server.client();
    for _ in 0..3 {
        let created = create_of(inbound()).send(&mut client).await;
        created.expect("there is a partition for it");
    }
}

#[tokio::test]
async fn a_server_starts_and_works_with_any_retention() {
    let url = Cluster::shared().await.database().await;
    let mut settings = settings();
    settings.store.retention.keep = Duration::from_secs(u64::MAX);
    settings.store.retention.partition_len = 1000;
    let server = start(&url, settings).await;
    fill(&mut server.client(), 2000).await;
    server.stop().await;
    let server = start(&url, settings).await;
    // More than the partitions hold that a start makes.
    assert_eq!(fill(&mut server.client(), 8000).await, 10_000);
    let created = create_of(inbound()).send(&mut server.client()).await;
    created.expect("it is created");
}

#[tokio::test]
async fn two_installations_in_one_database_do_not_wait_for_each_other() {
    let cluster = Cluster::shared().await;
    let postgres = connect(&cluster.url("postgres")).await;
    let name = "two_installations";
    let make = format!("CREATE DATABASE {name}");
    postgres.batch_execute(&make).await.expect("it is new");
    let database = connect(&cluster.url(name)).await;
    let schemas = "CREATE SCHEMA first; CREATE SCHEMA second";
    database.batch_execute(schemas).await.expect("they are new");
    let url = |schema| format!("{} options='-c search_path={schema}'", cluster.url(name));
    let first = start(&url("first"), settings()).await;
    let second = start(&url("second"), settings()).await;
    for server in [&first, &second] {
        assert_eq!(create(&mut server.client(), inbound()).await.revision, 1);
    }
    // A commit of the first waits, with all the locks that a commit takes.
    let lock = "BEGIN; LOCK TABLE first.voice_call_changes IN ACCESS EXCLUSIVE MODE";
    database.batch_execute(lock).await.expect("it is free");
    let mut waiting = first.client();
    let waiting = tokio::spawn(async move { create_of(inbound()).send(&mut waiting).await });
    let look = connect(&cluster.url(name)).await;
    crate::support::eventually("the first waits", async || {
        running(&look, "voicecall writer", true).await > 0
    })
    .await;
    let started = Instant::now();
    let created = create_of(inbound()).send(&mut second.client()).await;
    let took = started.elapsed();
    database.batch_execute("COMMIT").await.expect("it is open");
    created.expect("it is created");
    assert!(took < Duration::from_secs(2), "the second waited {took:?}");
    waiting
        .await
        .expect("no panic")
        .expect("it is created in the end");
}

#[tokio::test]
async fn a_database_that_is_not_in_utf_8_is_refused_with_the_reason() {
    let cluster = Cluster::shared().await;
    let postgres = connect(&cluster.url("postgres")).await;
    let make = "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 \
        LC_COLLATE 'C' LC_CTYPE 'C'";
    postgres.batch_execute(make).await.expect("it is new");
    let url = cluster.url("latin");
    assert_eq!(database_of(&url), "latin");
    let (server, _ready) = Server::launch(&url, settings()).await;
    let ended = timeout(PATIENCE, server.running).await;
    let error = ended.expect("it is refused").expect("no panic");
    let error = error.expect_err("it is refused").to_string();
    let says = ["LATIN1", "UTF"].map(|word| error.contains(word));
    assert_eq!(says, [true; 2], "{error}");
}
