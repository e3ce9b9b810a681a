//! The connection over which the feed follows the log stands still: what this process commits
//! meanwhile is bounded in memory, and reaches the watchers afterwards.

use futures_util::future::join_all;
use voicecall::proto::watch_voice_calls_request::Start;

use super::create_many;
use crate::support::{
    create, eventually, inbound,
    postgres::{Cluster, Stopped, connect, follower_backends},
    server::Process,
    watcher::{Watcher, change, from, live},
};

/// What is written: far more than the feed's memory.
const WRITERS: usize = 8;
const WRITES: usize = 24;
const CALLS: usize = 30;
const SUMMARY_BYTES: usize = 60_000;
/// The batches on their way to the feed, its recent changes (32 MiB each by default), the
/// requests in progress, and as much again for all else.
const MAX_GROWTH_KIB: u64 = 224 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_the_feed_cannot_take_are_read_from_the_log() {
    let url = Cluster::shared().await.database().await;
    let database = connect(&url).await;
    let server = Process::start(&[("DATABASE_URL", &url)]);
    let mut client = server.client();
    let first = create(&mut client, inbound()).await.revision;
    let watcher = Watcher::start(&mut client, from(live())).await;
    let mut watcher = watcher.expect("it starts");
    watcher.checkpoint().await;
    let token = watcher.token.clone();
    let mut backends = Vec::new();
    eventually("the feed follows the log", async || {
        backends = follower_backends(&database).await;
        !backends.is_empty()
    })
    .await;
    let before = server.resident_kib();
    let stopped = Stopped::new(backends[0]);
    let writing = (0..WRITERS).map(|_| {
        let mut client = server.client();
        async move {
            for _ in 0..WRITES {
                create_many(&mut client, CALLS, SUMMARY_BYTES).await;
            }
        }
    });
    join_all(writing).await;
    let growth = server.resident_kib().saturating_sub(before);
    drop(stopped);
    let last = create(&mut client, inbound()).await.revision;
    // A watch ends when the feed has not heard from the database for some intervals.
    let resume = from(Start::ResumeToken(token));
    let watcher = Watcher::start(&mut client, resume).await;
    let events = watcher.expect("it starts").until(last).await;
    let revisions: Vec<i64> = events.iter().map(|event| change(event).revision).collect();
    assert_eq!(revisions, (first + 1..=last).collect::<Vec<_>>());
    eprintln!("GROWTH {growth} KiB");
    assert!(growth < MAX_GROWTH_KIB, "{growth} KiB");
}
