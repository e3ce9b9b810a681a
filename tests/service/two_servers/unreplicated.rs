//! Commits that the standby does not have: the primary shows them after its
//! recovery, or when the wait for the standby is broken off. Nothing of the kind
//! may be acknowledged before a standby has it.

use std::time::Duration;

use tokio::time::{Instant, interval};
use tokio_postgres::Client as Database;

use super::{
    LONGEST_PAUSE, blocking, is_long_run,
    load::{Load, Told},
    pair::{Pair, WAITING_FOR_STANDBY, count},
    within,
};
use crate::support::server::Process;

/// What one process of the service may hold in connections to the database.
const MAX_CONNECTIONS: i64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_waited_for_its_standby_is_not_acknowledged_by_a_recovered_primary() {
    let what = "the primary is killed while commits wait, recovered, and destroyed";
    let pair = Pair::synchronous().await;
    let service = pair.service();
    let load = Load::start(&service, 16);
    load.wait_for(200).await;
    pair.cut().await;
    commits_wait(&pair.first().await).await;
    blocking(|| {
        pair.first.kill();
        pair.first.restart();
    });
    // The service has found it again, and waits for the standby.
    commits_wait(&pair.first().await).await;
    blocking(|| pair.first.kill());
    let writable = pair.promote().await;
    load.goes_on(what, writable).await;
    let told = load.stop().await;
    let second = pair.second().await;
    told.check(what, &second, &mut service.client()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_the_standby_that_is_terminated_acknowledges_nothing() {
    let what = "the standby is cut off, waiting backends are terminated";
    let pair = Pair::synchronous().await;
    let service = pair.service();
    let told = write_some(&service, &pair).await;
    let primary = pair.cut().await;
    let load = disturb(&pair, &service, 16, &["terminate"]).await;
    let back = Instant::now();
    pair.mend(&primary).await;
    goes_on(what, &pair, &service, &told, load, back).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_the_standby_that_is_cancelled_acknowledges_nothing() {
    let what = "the standby is cut off, waiting backends are cancelled";
    let pair = Pair::synchronous().await;
    let service = pair.service();
    let told = write_some(&service, &pair).await;
    let primary = pair.cut().await;
    let load = disturb(&pair, &service, 16, &["cancel"]).await;
    let back = Instant::now();
    pair.mend(&primary).await;
    goes_on(what, &pair, &service, &told, load, back).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_outage_of_the_standby_eats_no_connections() {
    let what = "the standby is frozen for 30 s, waiting backends are terminated and cancelled";
    if !is_long_run() {
        println!("skipped: {what}; VOICECALL_TEST_LONG=1 runs it");
        return;
    }
    let pair = Pair::synchronous().await;
    let service = pair.service();
    let told = write_some(&service, &pair).await;
    blocking(|| pair.second.pause());
    let load = disturb(&pair, &service, 64, &["terminate", "cancel"]).await;
    let back = Instant::now();
    blocking(|| pair.second.resume());
    goes_on(what, &pair, &service, &told, load, back).await;
}

/// Some writes before an outage, all of which the standby has.
async fn write_some(service: &Process, pair: &Pair) -> Told {
    let load = Load::start(service, 16);
    load.wait_for(200).await;
    let told = load.stop().await;
    let first = pair.first().await;
    within(LONGEST_PAUSE, "the last commits have ended", async || {
        count(&first, WAITING_FOR_STANDBY).await == 0
    })
    .await;
    told
}

/// Has clients write while the standby is away and an administrator does these
/// things to backends that wait for it: nothing is acknowledged, and there are
/// not too many of them. The clients go on.
async fn disturb(pair: &Pair, service: &Process, clients: u32, deeds: &[&str]) -> Load {
    let began = Instant::now();
    let load = Load::start(service, clients);
    let first = pair.first().await;
    commits_wait(&first).await;
    let seconds = if is_long_run() { 30 } else { 3 };
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut looks = interval(Duration::from_millis(100));
    let (mut most, mut done) = (0, 0);
    for deed in deeds.iter().cycle() {
        looks.tick().await;
        if Instant::now() > deadline {
            break;
        }
        let sql = format!("SELECT pg_{deed}_backend(pid) FROM {WAITING_FOR_STANDBY} LIMIT 1");
        done += first.query(&sql, &[]).await.expect("it may").len();
        let ours = "pg_stat_activity WHERE application_name LIKE 'voicecall%'";
        most = most.max(count(&first, ours).await);
    }
    let acknowledged = load.count_since(began);
    println!(
        "{deeds:?}: {done} waiting backends; {acknowledged} writes acknowledged; \
         at most {most} connections of the service"
    );
    assert_eq!(acknowledged, 0, "acknowledged, and no standby has it");
    assert!(most <= MAX_CONNECTIONS, "{most} connections of one process");
    load
}

/// After the outage: writes go on, and both servers have all that was
/// acknowledged.
async fn goes_on(
    what: &str,
    pair: &Pair,
    service: &Process,
    told: &Told,
    load: Load,
    back: Instant,
) {
    load.goes_on(what, back).await;
    let later = load.stop().await;
    let first = pair.first().await;
    let mut client = service.client();
    told.check(what, &first, &mut client).await;
    later.check(what, &first, &mut client).await;
    blocking(|| pair.first.kill());
    pair.promote().await;
    let second = pair.second().await;
    told.check(what, &second, &mut client).await;
    later.check(what, &second, &mut client).await;
}

/// Waits until a commit of the service waits for the standby.
async fn commits_wait(first: &Database) {
    within(
        LONGEST_PAUSE,
        "a commit waits for the standby",
        async || count(first, WAITING_FOR_STANDBY).await > 0,
    )
    .await;
}
