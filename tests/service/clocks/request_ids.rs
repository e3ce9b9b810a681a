//! A step of the clock makes nothing be forgotten early: neither request ids, which are
//! known for 24 hours, nor the change log.

use std::time::Duration;

use tokio::time::{Instant, interval};
use tokio_postgres::Client as Database;
use voicecall::{
    api::proto::{
        ListVoiceCallChangesRequest, VoiceCall, VoiceCallEvent, VoiceCallFilter,
        list_voice_call_changes_request::Start,
    },
    server::Settings,
};

use super::{DAY, Installation, MINUTE, Wrong, accepted, attempt, expect_creates};
use crate::support::{
    Client, Server, inbound,
    postgres::{connect, contents},
    server::{client, settings},
    watcher::change,
    writes::{Write, batch_of, create_of},
};

/// Short, so that a few writes fill partitions.
const PARTITION_LEN: i64 = 1000;

/// Creates a call with a request id; returns the request and its response.
async fn first(endpoint: &str) -> (Write, Vec<VoiceCall>) {
    let write = create_of(inbound());
    let answer = accepted(endpoint, write.clone()).await;
    (write, answer)
}

async fn calls(database: &Database) -> i64 {
    contents(database).await.calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_id_is_known_after_the_databases_clock_was_a_day_ahead() {
    a_request_id_is_known_after_a_moment(Wrong::Database, DAY + MINUTE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_id_is_known_after_the_clock_of_the_one_host_was_a_day_ahead() {
    a_request_id_is_known_after_a_moment(Wrong::Both, DAY + MINUTE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_id_is_known_after_the_databases_clock_was_two_days_behind() {
    a_request_id_is_known_after_a_moment(Wrong::Database, -2 * DAY).await;
}

async fn a_request_id_is_known_after_a_moment(wrong: Wrong, seconds_ahead: i64) {
    let Some(installation) = Installation::start(wrong).await else {
        return;
    };
    let service = installation.service();
    let (write, answer) = first(&service.endpoint).await;
    let (mut client, repeat) = (service.client(), write.clone());
    let during = async move {
        let other = attempt(&mut client, create_of(inbound())).await;
        (other, attempt(&mut client, repeat).await)
    };
    let time = Duration::from_secs(2);
    let (other, repeated) = installation.step(seconds_ahead, time, during).await;
    if let Some(repeated) = repeated {
        assert_eq!(repeated, answer, "while the clock is wrong");
    }
    assert_eq!(accepted(&service.endpoint, write.clone()).await, answer);
    drop(service);
    let service = installation.service();
    assert_eq!(accepted(&service.endpoint, write).await, answer);
    let database = connect(&installation.url).await;
    let expected = 1 + i64::from(other.is_some());
    assert_eq!(calls(&database).await, expected, "calls");
}

/// Settings with partitions of the log that are full soon.
fn short_partitions() -> Settings {
    let mut settings = settings();
    settings.store.retention.partition_len = PARTITION_LEN;
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_dropped_although_the_databases_clock_was_eight_days_ahead() {
    let Some(installation) = Installation::start(Wrong::Database).await else {
        return;
    };
    let url = installation.url.as_str();
    let server = Server::start_on(url, short_partitions()).await;
    let (write, answer) = first(&server.endpoint).await;
    // Its partition of the log is full, and one more.
    for _ in 0..5 {
        accepted(&server.endpoint, batch_of(vec![inbound(); 500])).await;
    }
    // A replica that starts tends the partitions at once, and while it runs.
    installation.clock.set(8 * DAY);
    let second = Server::start_on(url, short_partitions()).await;
    write_for(&server.endpoint, time_ahead()).await;
    installation.clock.set(0);
    for server in [&server, &second] {
        expect_kept(&server.endpoint, &write, &answer).await;
        expect_creates(&server.endpoint).await;
    }
    let third = Server::start_on(url, short_partitions()).await;
    expect_kept(&third.endpoint, &write, &answer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_dropped_although_the_clock_of_the_one_host_was_eight_days_ahead() {
    let Some(installation) = Installation::start(Wrong::Both).await else {
        return;
    };
    let service = installation.service();
    let (write, answer) = first(&service.endpoint).await;
    installation.clock.set(8 * DAY);
    let second = installation.service();
    write_for(&service.endpoint, time_ahead()).await;
    installation.clock.set(0);
    for service in [&service, &second] {
        expect_kept(&service.endpoint, &write, &answer).await;
        expect_creates(&service.endpoint).await;
    }
    let third = installation.service();
    expect_kept(&third.endpoint, &write, &answer).await;
}

/// How long the clock is eight days ahead: longer than a round of the upkeep where long
/// tests run.
fn time_ahead() -> Duration {
    let is_long = std::env::var_os("VOICECALL_TEST_LONG").is_some();
    Duration::from_secs(if is_long { 130 } else { 3 })
}

/// Writes ten times a second; each write is accepted, or refused as passing.
async fn write_for(endpoint: &str, time: Duration) {
    let mut client = client(endpoint);
    let end = Instant::now() + time;
    let mut ticks = interval(Duration::from_millis(100));
    let mut writing = tokio::task::JoinSet::new();
    while Instant::now() < end {
        ticks.tick().await;
        let mut client = client.clone();
        writing.spawn(async move { attempt(&mut client, create_of(inbound())).await });
    }
    // What waits for a clock that can be right may go on waiting.
    writing.detach_all();
    // But it must answer reads.
    crate::support::get(&mut client, &crate::support::request_id())
        .await
        .expect_err("there is no such call");
}

/// The request is still known, and the history of its call is complete.
async fn expect_kept(endpoint: &str, write: &Write, answer: &[VoiceCall]) {
    assert_eq!(accepted(endpoint, write.clone()).await, answer);
    let [call] = answer else {
        panic!("one call: {answer:?}");
    };
    let events = history(&mut client(endpoint), &call.uid).await;
    let revisions: Vec<_> = events.iter().map(|event| change(event).revision).collect();
    assert_eq!(revisions, [call.revision]);
    assert_eq!(change(&events[0]).voice_call.as_ref(), Some(call));
}

/// All changes of a call from the first on.
async fn history(client: &mut Client, uid: &str) -> Vec<VoiceCallEvent> {
    let mut events = Vec::new();
    let mut start = Start::AfterRevision(0);
    loop {
        let request = ListVoiceCallChangesRequest {
            filter: Some(VoiceCallFilter {
                uids: vec![uid.into()],
                ..Default::default()
            }),
            start: Some(start),
            ..Default::default()
        };
        let page = client.list_voice_call_changes(request).await;
        let page = page.expect("the log is there").into_inner();
        events.extend(page.events);
        if page.caught_up {
            return events;
        }
        start = Start::ResumeToken(page.resume_token);
    }
}
