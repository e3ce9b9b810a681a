//! What is left by processes that were killed.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use tokio_util::sync::CancellationToken;
use voicecall::postgres::{Error, Postgres};

use super::{
    helper::{
        Helper, Scratch, Unrelated, add_value, eventually, exists, is_root, pids_in, postmaster,
        query, signal, sleeping_backend, values,
    },
    settings, started,
};

#[tokio::test]
async fn comes_back_when_its_server_is_killed() {
    let scratch = Scratch::new("killed");
    let postgres = started(scratch.data()).await;
    for round in 1..=3 {
        add_value(postgres.database_url(), round).await;
        let killed = postmaster(scratch.data()).expect("a server runs");
        signal(killed, "KILL");
        eventually("another server serves", async || {
            postmaster(scratch.data()).is_some_and(|pid| pid != killed)
                && query(postgres.database_url(), "SELECT 1").await.is_ok()
        })
        .await;
    }
    assert_eq!(values(postgres.database_url()).await, ["1", "2", "3"]);
    postgres.stop().await;
}

/// A backend that outlives its server may still write: nothing may start beside it,
/// not even when the file that tells of it is gone.
#[tokio::test]
async fn waits_for_the_backends_of_a_killed_server() {
    let scratch = Scratch::new("orphan");
    let postgres = started(scratch.data()).await;
    let url = postgres.database_url();
    let server = postmaster(scratch.data()).expect("a server runs");
    let sleep = query(url, "SELECT pg_sleep(3600)");
    let test = async {
        let backend = sleeping_backend(url).await;
        signal(backend, "STOP");
        signal(server, "KILL");

        let said = scratch.data().join("startup.log");
        let refuses = async || {
            fs::read_to_string(&said).is_ok_and(|log| log.contains("pre-existing shared memory"))
        };
        eventually("the next server refuses", refuses).await;
        fs::write(&said, "").expect("forgotten");
        let _ = fs::remove_file(scratch.data().join("postgres/postmaster.pid"));
        eventually("it does without the file, too", refuses).await;
        assert!(query(url, "SELECT 1").await.is_err(), "nothing serves");

        signal(backend, "KILL");
        eventually("it is back", async || query(url, "SELECT 1").await.is_ok()).await;
    };
    let (slept, ()) = tokio::join!(sleep, test);
    assert!(slept.is_err(), "its server was killed");
    postgres.stop().await;
}

#[tokio::test]
async fn stops_what_a_killed_service_left_running() {
    let scratch = Scratch::new("left");
    let mut service = Helper::start(scratch.data(), None);
    let url = service.says("ready ").await;
    add_value(&url, 7).await;
    let left = postmaster(scratch.data()).expect("a server runs");
    service.kill();
    assert!(exists(left), "its server outlives it");

    let postgres = started(scratch.data()).await;
    assert!(!exists(left), "the left-over server is gone");
    assert_ne!(postmaster(scratch.data()), Some(left));
    assert_eq!(values(postgres.database_url()).await, ["7"]);
    postgres.stop().await;
}

#[tokio::test]
async fn recovers_when_service_and_server_were_killed() {
    let scratch = Scratch::new("both");
    let mut service = Helper::start(scratch.data(), None);
    let url = service.says("ready ").await;
    add_value(&url, 8).await;
    let server = postmaster(scratch.data()).expect("a server runs");
    service.kill();
    signal(server, "KILL");

    let postgres = started(scratch.data()).await;
    assert_eq!(values(postgres.database_url()).await, ["8"]);
    postgres.stop().await;
}

fn unfinished(data_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data_dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("postgres.new-"))
        .collect()
}

#[tokio::test]
async fn an_interrupted_first_start_is_made_good() {
    let scratch = Scratch::new("interrupted");
    let data = scratch.data();

    let mut service = Helper::start(data, None);
    eventually("a cluster is being made", async || {
        unfinished(data)
            .iter()
            .any(|new| new.join("PG_VERSION").exists())
    })
    .await;
    service.kill();
    assert!(!data.join("postgres").exists(), "nothing half-made");

    let was = unfinished(data);
    let cancel = CancellationToken::new();
    let interrupt = async {
        eventually("a server writes a new one", async || {
            unfinished(data)
                .iter()
                .any(|new| !was.contains(new) && new.join("global/pg_control").exists())
        })
        .await;
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(Postgres::start(settings(data), &cancel), interrupt);
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    let mut left = unfinished(data);
    left.retain(|new| !was.contains(new) && pids_in(new).into_iter().any(exists));
    assert_eq!(left, [] as [PathBuf; 0], "nobody writes there any more");
    assert!(!data.join("postgres").exists(), "nothing half-made");

    let postgres = started(data).await;
    add_value(postgres.database_url(), 1).await;
    assert_eq!(unfinished(data), [] as [PathBuf; 0]);
    postgres.stop().await;
}

#[tokio::test]
async fn is_not_misled_by_the_pid_of_an_unrelated_process() {
    let scratch = Scratch::new("reused");
    started(scratch.data()).await.stop().await;
    let cluster = scratch.data().join("postgres");
    let owner = fs::metadata(&cluster).expect("there");
    // Of the server's own account: PostgreSQL takes those for its own.
    let mut unrelated = Unrelated::start(owner.uid());
    let file = cluster.join("postmaster.pid");
    let content = format!(
        "{}\n{}\n1\n5432\n\n\n 1 1\nready   \n",
        unrelated.pid(),
        cluster.display()
    );
    fs::write(&file, content).expect("written");
    if is_root() {
        chown(&file, Some(owner.uid()), Some(owner.gid())).expect("given");
    }

    let postgres = started(scratch.data()).await;
    add_value(postgres.database_url(), 1).await;
    assert!(unrelated.is_alive(), "it was left alone");
    postgres.stop().await;

    fs::write(&file, "").expect("emptied, as a power failure does");
    started(scratch.data()).await.stop().await;
}
