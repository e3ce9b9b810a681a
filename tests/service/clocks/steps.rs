//! Writes go on after the clock has been wrong: it pins nothing to a time that has not
//! come, and no write is refused for good.

use std::time::Duration;

use voicecall::proto::VoiceCall;

use super::{
    HOUR, Installation, NEAR, Wrong, YEAR, attempt, attempt_import, expect_creates, start,
    true_time,
};
use crate::support::{
    clock::Clock,
    create, eventually, get, inbound, micros,
    postgres::{Cluster, connect, running},
    writes::create_of,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_after_the_databases_clock_was_40_hours_ahead_for_a_moment() {
    writes_go_on_after_a_moment(Wrong::Database, 40 * HOUR).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_after_the_clock_of_the_one_host_was_40_hours_ahead_for_a_moment() {
    writes_go_on_after_a_moment(Wrong::Both, 40 * HOUR).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_after_the_databases_clock_was_years_ahead_for_a_moment() {
    writes_go_on_after_a_moment(Wrong::Database, 70 * YEAR).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_after_the_databases_clock_was_years_behind_for_a_moment() {
    writes_go_on_after_a_moment(Wrong::Database, -10 * YEAR).await;
}

async fn writes_go_on_after_a_moment(wrong: Wrong, seconds_ahead: i64) {
    let Some(installation) = Installation::start(wrong).await else {
        return;
    };
    let service = installation.service();
    create(&mut service.client(), inbound()).await;
    let (import, mut creating) = (service.client(), service.client());
    let both = async move {
        tokio::join!(
            attempt_import(import),
            attempt(&mut creating, create_of(inbound()))
        )
    };
    let moment = Duration::from_millis(300);
    installation.step(seconds_ahead, moment, both).await;
    let created = expect_creates(&service.endpoint).await;
    expect_near(&created);
    if wrong == Wrong::Database && seconds_ahead > 0 {
        let log = &service.log;
        eventually("the log tells of the clock", async || log.has(&["clock"])).await;
    }
    drop(service);
    let service = installation.service();
    expect_creates(&service.endpoint).await;
}

/// What was created just now says so.
#[track_caller]
fn expect_near(created: &VoiceCall) {
    let ahead = micros(created.updated_at) - true_time();
    assert!(ahead.abs() < NEAR, "times are {ahead} microseconds ahead");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_began_in_2099_is_of_use_once_its_clock_is_right() {
    writes_go_on_after_a_beginning_ahead(Wrong::Database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_began_in_2099_is_of_use_once_its_clock_is_right() {
    writes_go_on_after_a_beginning_ahead(Wrong::Both).await;
}

async fn writes_go_on_after_a_beginning_ahead(wrong: Wrong) {
    let Some(installation) = Installation::start_at(wrong, 73 * YEAR).await else {
        return;
    };
    let mut starting = installation.launch();
    let mut first = None;
    if starting.serves() {
        let mut client = starting.service.client();
        let write = async move { attempt(&mut client, create_of(inbound())).await };
        let moment = Duration::from_millis(300);
        first = installation.step(73 * YEAR, moment, write).await;
    }
    installation.clock.set(0);
    let service = starting.started();
    let created = expect_creates(&service.endpoint).await;
    if wrong == Wrong::Database {
        // The service knew better from the beginning.
        expect_near(&created);
    }
    drop(service);
    let service = installation.service();
    expect_creates(&service.endpoint).await;
    for call in first.into_iter().flatten() {
        let found = get(&mut service.client(), &call.uid).await;
        assert_eq!(found.expect("it was accepted"), call);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_starts_with_a_clock_of_its_own_that_is_wrong_moves_no_time() {
    let Some(clock) = Clock::new() else {
        return;
    };
    let url = Cluster::shared().await.database().await;
    let right = start(&[("DATABASE_URL", url.clone())]);
    create(&mut right.client(), inbound()).await;
    let mut environment = clock.for_service();
    environment.push(("DATABASE_URL", url));
    for seconds_ahead in [40 * HOUR, 10 * YEAR, -10 * YEAR] {
        clock.set(seconds_ahead);
        let wrong = start(&environment);
        expect_near(&expect_creates(&wrong.endpoint).await);
        expect_near(&expect_creates(&right.endpoint).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_has_to_wait_is_not_taken_for_a_step_of_the_databases_clock() {
    /// Longer than a clock may be off by without having stepped.
    const WAIT: Duration = Duration::from_millis(1500);
    let url = Cluster::shared().await.database().await;
    let database = connect(&url).await;
    // A transaction sees the activity of others as it was when it first looked.
    let look = connect(&url).await;
    let service = start(&[("DATABASE_URL", url)]);
    let mut client = service.client();
    create(&mut client, inbound()).await;
    // A commit reads the clock before it gets here.
    let lock = "BEGIN; LOCK TABLE voice_call_changes IN SHARE MODE";
    database.batch_execute(lock).await.expect("it is free");
    let release = async {
        eventually("the commit waits", async || {
            running(&look, "voicecall writer", true).await > 0
        })
        .await;
        tokio::time::sleep(WAIT).await;
        database.batch_execute("COMMIT").await.expect("it ends");
    };
    tokio::join!(create(&mut client, inbound()), release);
    expect_creates(&service.endpoint).await;
    let lines = service.log.lines();
    assert!(!service.log.has(&["clock"]), "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_after_a_host_restarted_with_its_clock_40_hours_ahead() {
    let Some(installation) = Installation::start(Wrong::Both).await else {
        return;
    };
    let service = installation.service();
    create(&mut service.client(), inbound()).await;
    drop(service);
    installation.clock.set(40 * HOUR);
    // Nothing tells it from a host that was off for 40 hours.
    let service = installation.service();
    expect_creates(&service.endpoint).await;
    installation.clock.set(0);
    expect_creates(&service.endpoint).await;
    drop(service);
    let service = installation.service();
    expect_creates(&service.endpoint).await;
}
