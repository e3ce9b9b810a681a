//! Many clients on two replicas over one database, some on the same calls, also
//! while the database is killed: nothing acknowledged is lost, nothing is applied
//! twice, and the change log is dense and tells the whole story.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::support::{
    ledger::check_ledger,
    load::{CLIENTS, Load, busy_time, repeat},
    postgres::{Cluster, Durability, connect},
    server::Process,
    tally::Tally,
};

/// Runs the clients; `meanwhile` may do to the cluster what it likes.
async fn run(meanwhile: impl AsyncFnOnce(&Cluster, &Tally)) {
    let cluster = Cluster::start(Durability::Durable);
    let url = cluster.database().await;
    let replicas = [1, 2].map(|_| Process::start(&[("DATABASE_URL", &url)]));
    let until = Instant::now() + busy_time();
    let tally = Arc::new(Tally::default());
    let endpoints = [&*replicas[0].endpoint, &*replicas[1].endpoint];
    let load = Load::start(endpoints, CLIENTS, 0, &tally);
    meanwhile(&cluster, &tally).await;
    // Whatever happens meanwhile may take longer on a busy machine.
    sleep_until(until).await;
    let observed = load.finish(Duration::from_secs(20)).await;
    observed.check_revisions(&tally);
    tally.assert_no_violation();
    assert!(observed.named.len() > 100, "the clients were busy");
    let database = connect(&url).await;
    check_ledger(&database, &observed.states()).await;
    let head = check_ledger(&database, &[]).await;
    let mut client = replicas[0].client();
    for answered in observed.named.iter().take(2_000) {
        repeat(answered, &mut client, &tally, &CancellationToken::new()).await;
    }
    tally.assert_no_violation();
    assert_eq!(
        check_ledger(&database, &[]).await,
        head,
        "a repeat writes nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_under_64_clients_lose_and_repeat_nothing() {
    run(async |_, _| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_they_when_the_database_is_killed_in_the_middle() {
    run(async |cluster, tally| {
        for wanted in [1_000, 2_000, 3_000] {
            let mut look = interval(Duration::from_millis(5));
            while tally.count("writes acknowledged") < wanted {
                look.tick().await;
            }
            tokio::task::block_in_place(|| {
                cluster.kill();
                cluster.restart();
            });
        }
    })
    .await;
}
