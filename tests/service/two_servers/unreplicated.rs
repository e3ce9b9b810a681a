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
    outage("waiting backends are terminated", 16, &["terminate"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_the_standby_that_is_cancelled_acknowledges_nothing() {
    outage("waiting backends are cancelled", 16, &["cancel"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_outage_of_the_standby_eats_no_connections() {
    let what = "the standby is away for 30 s, waiting backends are terminated and cancelled";
    if !is_long_run() {
        println!("skipped: {what}; VOICECALL_TEST_LONG=1 runs it");
        return;
    }
    outage(what, 64, &["terminate", "cancel"]).await;
}

/// An outage of the standby, during which an administrator does this to backends
/// that wait for it.
async fn outage(what: &str, clients: u32, deeds: &[&str]) {
    let pair = Pair::synchronous().await;
    let service = pair.service();
    let load = Load::start(&service, clients);
    load.wait_for(200).await;
    let primary = pair.cut().await;
    let first = pair.first().await;
    commits_wait(&first).await;
    // What the standby had was answered before or on the way when it was cut off.
    let told = load.stop().await;

    let began = Instant::now();
    let load = Load::start(&service, clients);
    disturb(&first, deeds).await;
    assert_eq!(
        load.count_since(began),
        0,
        "acknowledged, and no standby has it"
    );

    let back = Instant::now();
    pair.mend(&primary).await;
    load.goes_on(what, back).await;
    let later = load.stop().await;
    check(what, &pair, &service, &told, &later).await;
}

/// Does these things to backends that wait for the standby, in turn; counts the
/// service's connections meanwhile.
async fn disturb(first: &Database, deeds: &[&str]) {
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
        most = most.max(count(first, ours).await);
    }
    println!("{deeds:?}: {done} waiting backends; at most {most} connections of the service");
    assert!(done > 0, "something waited for the standby");
    assert!(most <= MAX_CONNECTIONS, "{most} connections of one process");
}

/// Both servers have all that was acknowledged.
async fn check(what: &str, pair: &Pair, service: &Process, told: &Told, later: &Told) {
    let first = pair.first().await;
    let mut client = service.client();
    told.check(what, &first, &mut client).await;
    later.check(what, &first, &mut client).await;
    blocking(|| pair.first.kill());
    let writable = pair.promote().await;
    let load = Load::start(service, 4);
    within(LONGEST_PAUSE, "writes go on", async || {
        load.count_since(writable) > 0
    })
    .await;
    let last = load.stop().await;
    let second = pair.second().await;
    for told in [told, later, &last] {
        told.check(what, &second, &mut client).await;
    }
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
