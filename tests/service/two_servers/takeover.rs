//! The standby takes over while clients write: from a primary that freezes, that
//! cannot be reached any more, or that goes on as a standby itself. Commits had
//! waited for the standby, so it has every write that was acknowledged.

use tokio::time::Instant;

use super::{
    blocking, is_long_run,
    load::{Load, create_request, create_until_known},
    pair::{Pair, count, serve},
    reads::assert_seen,
};
use crate::support::{eventually, request_id};

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
    load.goes_on(what, writable).await;
    let told = load.stop().await;
    // Nobody may fall back on it from here on.
    blocking(|| pair.first.kill());
    let second = pair.second().await;
    told.check(what, &second, &mut service.client()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_when_a_primary_that_swallows_packets_is_replaced() {
    let what = "the primary cannot be reached (packets are swallowed)";
    if !is_long_run() {
        println!("skipped: {what}; VOICECALL_TEST_LONG=1 runs it");
        return;
    }
    let Some((pair, link)) = Pair::apart().await else {
        println!("skipped: {what}; only root can make a network of its own");
        return;
    };
    let service = pair.service();
    let load = Load::start(&service, CLIENTS);
    load.wait_for(200).await;
    blocking(|| link.swallow());
    let writable = pair.promote().await;
    load.goes_on(what, writable).await;
    // One that starts now finds the primary as well.
    let started = Instant::now();
    let another = serve(&pair.url());
    println!("{what}: a service starts in {:?}", started.elapsed());
    let request = create_request(request_id());
    let call = create_until_known(&mut another.client(), &request).await;
    assert_seen(&mut service.client(), &call).await;
    let told = load.stop().await;
    let second = pair.second().await;
    told.check(what, &second, &mut another.client()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_demoted_and_alive_is_used_no_more() {
    let what = "the primary is demoted and alive";
    let pair = Pair::synchronous().await;
    let service = pair.service();
    let load = Load::start(&service, CLIENTS);
    load.wait_for(200).await;
    // It waits until the standby has everything.
    blocking(|| pair.first.shut_down());
    let writable = pair.promote().await;
    blocking(|| pair.first.follow(&pair.second));
    let first = pair.first().await;
    let second = pair.second().await;
    eventually("the old primary follows the new one", async || {
        count(&second, "pg_stat_replication WHERE state = 'streaming'").await == 1
    })
    .await;
    // What is read there from now on is seen to be old.
    first
        .batch_execute("SELECT pg_wal_replay_pause()")
        .await
        .expect("it is a standby");
    load.goes_on(what, writable).await;

    let started_later = serve(&pair.url());
    for process in [&service, &started_later] {
        let mut client = process.client();
        let request = create_request(request_id());
        let call = create_until_known(&mut client, &request).await;
        for _ in 0..4 {
            assert_seen(&mut process.client(), &call).await;
        }
    }
    let told = load.stop().await;
    told.check(what, &second, &mut service.client()).await;
}
