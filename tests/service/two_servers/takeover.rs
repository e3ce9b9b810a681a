//! The standby is promoted while clients write, because the primary freezes, becomes
//! unreachable, or is demoted to a standby. With synchronous replication the new
//! primary has every acknowledged write.

use tokio::time::Instant;

use super::{
    blocking, is_long_run,
    load::{Load, create_request, create_until_known},
    pair::{Pair, count, serve},
    reads::assert_seen,
};
use crate::support::{eventually, request_id, server::Process};

const CLIENTS: u32 = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_when_a_frozen_primary_is_replaced() {
    let what = "the primary is frozen (SIGSTOP)";
    let pair = Pair::synchronous().await;
    let service = pair.service();
    let load = Load::start(&service, CLIENTS);
    load.wait_for(200).await;
    blocking(|| pair.first.pause());
    let writable = pair.promote().await;
    load.expect_writes_to_resume(what, writable).await;
    let answers = load.stop().await;
    // From here on nothing can be read from it.
    blocking(|| pair.first.kill());
    let second = pair.second().await;
    answers.check(what, &second, &mut service.client()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_primary_that_resumes_is_used_no_more() {
    let what = "the primary is frozen (SIGSTOP), and resumes after the failover";
    if !is_long_run() {
        println!("skipped: {what}; VOICECALL_TEST_LONG=1 runs it");
        return;
    }
    let pair = Pair::synchronous().await;
    let service = pair.service();
    let load = Load::start(&service, CLIENTS);
    load.wait_for(200).await;
    // Sessions of every kind exist before the failure.
    create_and_read(&service, 8).await;
    blocking(|| pair.first.pause());
    let writable = pair.promote().await;
    load.expect_writes_to_resume(what, writable).await;
    blocking(|| pair.first.resume());
    create_and_read(&service, 40).await;
    let answers = load.stop().await;
    let second = pair.second().await;
    answers.check(what, &second, &mut service.client()).await;
}

/// Asserts that reads return what was just acknowledged, by this many clients.
async fn create_and_read(service: &Process, clients: u32) {
    for _ in 0..clients {
        let mut client = service.client();
        let request = create_request(request_id());
        let call = create_until_known(&mut client, &request).await;
        assert_seen(&mut client, &call).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_when_an_unreachable_primary_is_replaced() {
    let what = "the primary cannot be reached (packets are dropped)";
    if !is_long_run() {
        println!("skipped: {what}; VOICECALL_TEST_LONG=1 runs it");
        return;
    }
    let Some((pair, link)) = Pair::in_namespace().await else {
        println!("skipped: {what}; only root can make a network of its own");
        return;
    };
    let service = pair.service();
    let load = Load::start(&service, CLIENTS);
    load.wait_for(200).await;
    blocking(|| link.drop_packets());
    let writable = pair.promote().await;
    load.expect_writes_to_resume(what, writable).await;
    // A service that starts now finds the new primary, too.
    let started = Instant::now();
    let another = serve(&pair.url());
    println!("{what}: a service starts in {:?}", started.elapsed());
    let request = create_request(request_id());
    let call = create_until_known(&mut another.client(), &request).await;
    assert_seen(&mut service.client(), &call).await;
    let answers = load.stop().await;
    let second = pair.second().await;
    answers.check(what, &second, &mut another.client()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_demoted_and_alive_is_used_no_more() {
    let what = "the primary is demoted and alive";
    let pair = Pair::synchronous().await;
    let service = pair.service();
    let load = Load::start(&service, CLIENTS);
    load.wait_for(200).await;
    // A shutdown waits until the standby has received everything.
    blocking(|| pair.first.shut_down());
    let writable = pair.promote().await;
    blocking(|| pair.first.follow(&pair.second));
    let first = pair.first().await;
    let second = pair.second().await;
    eventually("the old primary follows the new one", async || {
        count(&second, "pg_stat_replication WHERE state = 'streaming'").await == 1
    })
    .await;
    // From now on every read from it is stale.
    first
        .batch_execute("SELECT pg_wal_replay_pause()")
        .await
        .expect("it is a standby");
    load.expect_writes_to_resume(what, writable).await;

    let started_later = serve(&pair.url());
    for process in [&service, &started_later] {
        create_and_read(process, 4).await;
    }
    let answers = load.stop().await;
    answers.check(what, &second, &mut service.client()).await;
}
