//! A step of the clock makes nothing be forgotten early: neither request ids, which are
//! known for 24 hours, nor the change log.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, interval, timeout},
};
use tokio_postgres::Client as Database;
use tonic::Code;
use voicecall::{
    proto::{
        ListVoiceCallChangesRequest, VoiceCall, VoiceCallEvent, VoiceCallFilter,
        list_voice_call_changes_request::Start,
    },
    server::Settings,
};

use super::{DAY, Installation, MINUTE, SOON, Wrong, accepted, attempt, expect_creates};
use crate::support::{
    Client, Server, assert_refused, get, inbound,
    postgres::{connect, contents},
    request_id,
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
    let (second, mut ready) = Server::launch(url, short_partitions()).await;
    // It may wait for a clock that can be right.
    let is_ready = timeout(Duration::from_secs(5), &mut ready).await.is_ok();
    let writes = write_for(&server.endpoint, time_ahead()).await;
    installation.clock.set(0);
    writes.join_all().await;
    if !is_ready {
        let ready = timeout(2 * SOON, ready).await;
        ready.expect("on time").expect("it starts");
    }
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
    let mut second = installation.launch();
    second.serves();
    let writes = write_for(&service.endpoint, time_ahead()).await;
    installation.clock.set(0);
    writes.join_all().await;
    let second = second.started();
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

/// Writes ten times a second, and reads. Each write is accepted, or refused as passing,
/// for which some may wait until the clock is right.
async fn write_for(endpoint: &str, time: Duration) -> JoinSet<()> {
    let mut client = client(endpoint);
    let end = Instant::now() + time;
    let mut ticks = interval(Duration::from_millis(100));
    let mut writes = JoinSet::new();
    while Instant::now() < end {
        ticks.tick().await;
        let mut writer = client.clone();
        writes.spawn(async move { drop(attempt(&mut writer, create_of(inbound())).await) });
        let missing = get(&mut client, &request_id()).await;
        assert_refused(missing, Code::NotFound, "CALL_NOT_FOUND", &[]);
    }
    writes
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
