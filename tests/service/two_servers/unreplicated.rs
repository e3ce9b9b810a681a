//! Commits that have not reached the synchronous standby. The primary shows them after
//! crash recovery, and when the wait for the standby is interrupted; the service must
//! not acknowledge them before the standby has them.

use std::time::Duration;

use tokio::time::{Instant, interval};
use tokio_postgres::Client as Database;

use super::{
    LONGEST_PAUSE, blocking, is_long_run,
    load::{Answers, Load},
    pair::{Pair, WAITING_FOR_STANDBY, count},
    within,
};
use crate::support::server::Process;

/// The most database connections of one process of the service.
const MAX_CONNECTIONS: i64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_waited_for_its_standby_is_not_acknowledged_by_a_recovered_primary() {
    let what = "the primary is killed while commits wait, recovered, and destroyed";
    let pair = Pair::synchronous().await;
    let service = pair.service();
    let load = Load::start(&service, 16);
    load.wait_for(200).await;
    pair.disconnect_standby().await;
    commits_wait(&pair.first().await).await;
    blocking(|| {
        pair.first.kill();
        pair.first.restart();
    });
    // The service has reconnected, and waits for the standby.
    commits_wait(&pair.first().await).await;
    blocking(|| pair.first.kill());
    let writable = pair.promote().await;
    load.expect_writes_to_resume(what, writable).await;
    let answers = load.stop().await;
    let second = pair.second().await;
    answers.check(what, &second, &mut service.client()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_the_standby_that_is_terminated_acknowledges_nothing() {
    let what = "the standby is cut off, waiting backends are terminated";
    let pair = Pair::synchronous().await;
    let service = pair.service();
    let answers = write_before_outage(&service, &pair).await;
    let primary = pair.disconnect_standby().await;
    let load = write_during_outage(&pair, &service, 16, &["terminate"]).await;
    let back = Instant::now();
    pair.reconnect_standby(&primary).await;
    check_recovery(what, &pair, &service, &answers, load, back).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_the_standby_that_is_cancelled_acknowledges_nothing() {
    let what = "the standby is cut off, waiting backends are cancelled";
    let pair = Pair::synchronous().await;
    let service = pair.service();
    let answers = write_before_outage(&service, &pair).await;
    let primary = pair.disconnect_standby().await;
    let load = write_during_outage(&pair, &service, 16, &["cancel"]).await;
    let back = Instant::now();
    pair.reconnect_standby(&primary).await;
    check_recovery(what, &pair, &service, &answers, load, back).await;
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
    let answers = write_before_outage(&service, &pair).await;
    blocking(|| pair.second.pause());
    let load = write_during_outage(&pair, &service, 64, &["terminate", "cancel"]).await;
    let back = Instant::now();
    blocking(|| pair.second.resume());
    check_recovery(what, &pair, &service, &answers, load, back).await;
}

/// Writes before the outage; the standby has all of them.
async fn write_before_outage(service: &Process, pair: &Pair) -> Answers {
    let load = Load::start(service, 16);
    load.wait_for(200).await;
    let answers = load.stop().await;
    let first = pair.first().await;
    within(LONGEST_PAUSE, "the last commits have ended", async || {
        count(&first, WAITING_FOR_STANDBY).await == 0
    })
    .await;
    answers
}

/// Starts clients while the standby is unavailable, and cancels or terminates
/// backends that wait for it. Asserts that no write is acknowledged and that the
/// number of connections stays bounded. Returns the clients, which continue.
async fn write_during_outage(
    pair: &Pair,
    service: &Process,
    clients: u32,
    actions: &[&str],
) -> Load {
    let began = Instant::now();
    let load = Load::start(service, clients);
    let first = pair.first().await;
    commits_wait(&first).await;
    let seconds = if is_long_run() { 30 } else { 3 };
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut looks = interval(Duration::from_millis(100));
    let (mut most, mut done) = (0, 0);
    for action in actions.iter().cycle() {
        looks.tick().await;
        if Instant::now() > deadline {
            break;
        }
        let sql = format!("SELECT pg_{action}_backend(pid) FROM {WAITING_FOR_STANDBY} LIMIT 1");
        done += first.query(&sql, &[]).await.expect("it may").len();
        let ours = "pg_stat_activity WHERE application_name LIKE 'voicecall%'";
        most = most.max(count(&first, ours).await);
    }
    let acknowledged = load.count_since(began);
    println!(
        "{actions:?}: {done} waiting backends; {acknowledged} writes acknowledged; \
         at most {most} connections of the service"
    );
    assert_eq!(acknowledged, 0, "acknowledged, and no standby has it");
    assert!(most <= MAX_CONNECTIONS, "{most} connections of one process");
    load
}

/// Asserts that writes resume after the outage, and that both servers have every
/// acknowledged write.
async fn check_recovery(
    what: &str,
    pair: &Pair,
    service: &Process,
    answers: &Answers,
    load: Load,
    back: Instant,
) {
    load.expect_writes_to_resume(what, back).await;
    let later = load.stop().await;
    let first = pair.first().await;
    let mut client = service.client();
    answers.check(what, &first, &mut client).await;
    later.check(what, &first, &mut client).await;
    blocking(|| pair.first.kill());
    pair.promote().await;
    let second = pair.second().await;
    answers.check(what, &second, &mut client).await;
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
