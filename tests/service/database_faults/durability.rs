//! What is acknowledged survives a crash, whatever the role, the database or the
//! server's file say; and what the service cannot change it logs at start.

use crate::support::{
    Server, create, inbound,
    ledger::check_ledger,
    postgres::{Cluster, Durability, connect, database_of},
    server::{Process, settings},
};

/// Each round: so many writes, then a crash.
const WRITES: i64 = 40;
const ROUNDS: i64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_a_crash_although_synchronous_commit_is_off_everywhere() {
    // What is not written at the commit is written late.
    let cluster = Cluster::start_with(Durability::Durable, 5432, |_| {
        vec![
            "synchronous_commit=off".into(),
            "wal_writer_delay=10s".into(),
        ]
    });
    let url = cluster.database().await;
    let name = database_of(&url);
    for scope in [format!("DATABASE {name}"), "ROLE voicecall".into()] {
        let sql = format!("ALTER {scope} SET synchronous_commit = off");
        let database = connect(&url).await;
        database.batch_execute(&sql).await.expect("it is set");
        // What was done so far is not what this is about.
        let sql = "CHECKPOINT";
        database.batch_execute(sql).await.expect("it is written");
    }
    let mut written = Vec::new();
    for round in 1..=ROUNDS {
        let server = Server::start_on(&url, settings()).await;
        let mut client = server.client();
        for _ in 0..WRITES {
            written.push(create(&mut client, inbound()).await);
        }
        tokio::task::block_in_place(|| {
            cluster.kill();
            cluster.restart();
        });
        let head = check_ledger(&connect(&url).await, &written).await;
        assert_eq!(head, round * WRITES);
    }
}

#[tokio::test]
async fn a_database_server_that_may_lose_commits_is_logged_at_start() {
    let cluster = Cluster::start_with(Durability::Fast, 5432, |_| {
        vec!["full_page_writes=off".into()]
    });
    let url = cluster.database().await;
    let process = Process::start(&[("DATABASE_URL", &url)]);
    for setting in ["fsync", "full_page_writes"] {
        let lines = process.log.lines();
        assert!(process.log.has(&[setting]), "{setting}: {lines:#?}");
    }
}
