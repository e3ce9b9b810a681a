//! A standby that lacks the last changes is promoted, so that the change log forks:
//! streams that began on the lost branch end, and `min_revision` is not satisfied by
//! a revision of the lost branch.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{Instant, interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, Streaming};
use voicecall::proto::{
    BatchCreateVoiceCallsRequest, ExportVoiceCallsRequest, ExportVoiceCallsResponse, VoiceCall,
    watch_voice_calls_response::Message,
};

use super::{
    LONGEST_PAUSE, blocking,
    load::{create_request, create_until_known},
    pair::{Pair, count},
    reads::READS,
    within,
};
use crate::support::{
    Client, assert_refused, create, eventually, facts, inbound, request_id,
    server::{Process, narrow_client},
    update,
    watcher::{Watcher, from, snapshot},
};

/// Calls from before the fork: far more than the service reads ahead of a slow client.
const KEPT: i64 = 1_800;
/// Calls in one request.
const BATCH: i64 = 300;
/// The size of a call's summary.
const SUMMARY_BYTES: usize = 4_000;
/// One in so many calls is changed, on either branch.
const CHANGED_EVERY: usize = 30;
/// How soon a stream of the lost branch must end once the client reads on.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of a processor an idle service may use.
const IDLE_SHARE: f64 = 0.5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_min_revision_is_not_reached_until_the_new_log_has_it() {
    let what = "the primary is lost with the last changes";
    let pair = Pair::asynchronous().await;
    let service = pair.service();
    let mut client = service.client();
    let kept = vec![create(&mut client, inbound()).await];
    has_all(&pair, 1).await;
    pair.disconnect_standby().await;
    let mut lost = 0;
    for _ in 0..20 {
        lost = change_some(&mut client, &kept, &format!("lost {lost}")).await;
    }
    let last_write = Instant::now();
    blocking(|| pair.first.kill());
    let writable = pair.promote().await;
    create_until_known(&mut client, &create_request(request_id())).await;
    print_pause(what, last_write, writable);

    let uid = &kept[0].uid;
    min_revision_is_not_reached(&client, uid, lost).await;
    let mut new = 0;
    while new <= lost {
        new = change_some(&mut client, &kept, &format!("new {new}")).await;
    }
    for read in READS {
        let shown = read.revision(&mut client, uid, lost).await;
        let shown = shown.unwrap_or_else(|status| panic!("{read:?}: {status:?}"));
        assert_eq!(shown, Some(new), "{read:?} shows the new branch");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_a_lost_branch_of_the_log_are_reset() {
    let pair = Pair::asynchronous().await;
    let service = pair.service();
    let mut client = service.client();
    let kept = fill(&mut client).await;
    has_all(&pair, KEPT).await;
    let of_both = [
        SlowStream::export(&service).await,
        SlowStream::watch(&service).await,
    ];

    pair.disconnect_standby().await;
    let lost = change_some(&mut client, &kept, "lost").await;
    let mut of_lost = Vec::new();
    for _ in 0..2 {
        of_lost.push(SlowStream::export(&service).await);
        of_lost.push(SlowStream::watch(&service).await);
    }
    blocking(|| pair.first.kill());
    pair.promote().await;

    // Half of the streams are read on while the new head is below the lost one.
    create_until_known(&mut client, &create_request(request_id())).await;
    let later = of_lost.split_off(2);
    let mut ends = Vec::new();
    for slow in of_lost {
        ends.push(slow.end("below the lost head").await);
    }
    change_some(&mut client, &kept, "new").await;
    let new = change_some(&mut client, &kept, "newer").await;
    assert!(new > lost, "it is overtaken");
    for slow in later {
        ends.push(slow.end("beyond the lost head").await);
    }
    for status in ends {
        assert_is_reset(status.expect_err("a stream of the lost branch cannot be completed"));
    }
    for slow in of_both {
        slow.ends_or_is_of(&kept).await;
    }
    is_idle(&service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_do_not_wait_for_lost_changes_when_a_read_of_the_log_broke() {
    let pair = Pair::asynchronous().await;
    let (service, kept, streams) = between_page_and_log(&pair).await;
    // Pages can be read, and the log cannot.
    let [first, lock] = [pair.first().await, pair.first().await];
    let sql = "BEGIN; LOCK TABLE voice_call_changes IN ACCESS EXCLUSIVE MODE";
    lock.batch_execute(sql).await.expect("it may");
    let streams = streams.map(|stream| read_to_the_end(stream, &kept));
    eventually(
        "a page has been read, and the log is waited for",
        async || {
            let waiting = "pg_stat_activity WHERE wait_event = 'relation' \
            AND application_name LIKE 'voicecall%'";
            // One is the reader that follows the log.
            count(&first, waiting).await > 1
        },
    )
    .await;
    pair.promote().await;
    blocking(|| pair.first.kill());
    end_after_the_fork(&service, streams).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_do_not_wait_for_lost_changes_when_the_log_is_read_on_another_server() {
    let pair = Pair::asynchronous().await;
    let (service, kept, streams) = between_page_and_log(&pair).await;
    pair.promote().await;
    // Pages are still read by the sessions with the old primary. The log is read by
    // new ones, which only the new primary accepts.
    let first = pair.first().await;
    let rules = pair.first.dir().join("data/pg_hba.conf");
    std::fs::write(rules, "local all all reject\n").expect("it is ours");
    let end_of_log_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE application_name LIKE 'voicecall log%'";
    for sql in ["SELECT pg_reload_conf()", end_of_log_sessions] {
        first.batch_execute(sql).await.expect("it may");
    }
    for stream in streams.map(|stream| read_to_the_end(stream, &kept)) {
        stream.await.expect("it ends as it should");
    }
    is_idle(&service).await;
}

/// Streams that began before the fork, and have more pages to read. The service has
/// no recent changes in memory, so after each page it reads the log for changes.
async fn between_page_and_log(pair: &Pair) -> (Process, Vec<VoiceCall>, [SlowStream; 2]) {
    let environment = [
        ("DATABASE_URL", &*pair.url()),
        ("VOICECALL_FEED_MEMORY", "1"),
    ];
    let service = blocking(|| Process::start(&environment));
    let mut client = service.client();
    let kept = fill(&mut client).await;
    has_all(pair, KEPT).await;
    let streams = [
        SlowStream::export(&service).await,
        SlowStream::watch(&service).await,
    ];
    pair.disconnect_standby().await;
    change_some(&mut client, &kept, "lost").await;
    (service, kept, streams)
}

fn read_to_the_end(stream: SlowStream, kept: &[VoiceCall]) -> AbortOnDropHandle<()> {
    let kept = kept.to_vec();
    let end = async move { stream.ends_or_is_of(&kept).await };
    AbortOnDropHandle::new(tokio::spawn(end))
}

/// The streams end, although the log does not reach their last page.
async fn end_after_the_fork(service: &Process, streams: [AbortOnDropHandle<()>; 2]) {
    create_until_known(&mut service.client(), &create_request(request_id())).await;
    for stream in streams {
        stream.await.expect("it ends as it should");
    }
    is_idle(service).await;
}

/// Waits until the standby has this many calls.
pub(super) async fn has_all(pair: &Pair, calls: i64) {
    let second = pair.second().await;
    eventually("the standby has all calls", async || {
        count(&second, "voice_calls").await == calls
    })
    .await;
}

/// Creates the calls.
async fn fill(client: &mut Client) -> Vec<VoiceCall> {
    let mut calls = Vec::new();
    for _ in 0..KEPT / BATCH {
        let call = VoiceCall {
            call_summary: Some("k".repeat(SUMMARY_BYTES)),
            ..inbound()
        };
        let request = BatchCreateVoiceCallsRequest {
            voice_calls: (0..BATCH).map(|_| call.clone()).collect(),
            ..Default::default()
        };
        let response = client.batch_create_voice_calls(request).await;
        calls.extend(response.expect("they are created").into_inner().voice_calls);
    }
    calls
}

/// Changes some of these calls, spread evenly; returns the last revision.
pub(super) async fn change_some(client: &mut Client, calls: &[VoiceCall], summary: &str) -> i64 {
    let mut last = 0;
    for call in calls.iter().step_by(CHANGED_EVERY) {
        let call = VoiceCall {
            uid: call.uid.clone(),
            call_summary: Some(summary.into()),
            ..VoiceCall::default()
        };
        let changed = update(client, call, &["call_summary"]).await;
        last = changed.expect("it is changed").revision;
    }
    last
}

/// Asserts that every kind of read with the min_revision of a lost change is refused
/// with REVISION_NOT_REACHED.
async fn min_revision_is_not_reached(client: &Client, uid: &str, lost: i64) {
    let reads = READS.map(|read| {
        let (mut client, uid) = (client.clone(), uid.to_owned());
        let read = async move { (read, read.revision(&mut client, &uid, lost).await) };
        AbortOnDropHandle::new(tokio::spawn(read))
    });
    let mut wrong = Vec::new();
    for read in reads {
        match read.await.expect("no panic") {
            (_, Err(status)) if facts(&status).1 == "REVISION_NOT_REACHED" => {}
            (read, other) => wrong.push(format!("{read:?}: {other:?}")),
        }
    }
    assert!(
        wrong.is_empty(),
        "revision {lost} is lost, but reads return: {wrong:#?}"
    );
}

/// A snapshot or export whose client has read the first message.
struct SlowStream {
    stream: Stream,
    calls: Vec<VoiceCall>,
    what: &'static str,
}

enum Stream {
    Export(Box<Streaming<ExportVoiceCallsResponse>>),
    Watch(Box<Watcher>),
}

impl SlowStream {
    async fn export(service: &Process) -> Self {
        let mut client = narrow_client(&service.endpoint);
        let stream = client
            .export_voice_calls(ExportVoiceCallsRequest::default())
            .await;
        Self::begin(
            Stream::Export(Box::new(stream.expect("it begins").into_inner())),
            "export",
        )
        .await
    }

    async fn watch(service: &Process) -> Self {
        let mut client = narrow_client(&service.endpoint);
        let watcher = Watcher::start(&mut client, from(snapshot())).await;
        Self::begin(
            Stream::Watch(Box::new(watcher.expect("it begins"))),
            "watch",
        )
        .await
    }

    async fn begin(stream: Stream, what: &'static str) -> Self {
        let mut this = Self {
            stream,
            calls: Vec::new(),
            what,
        };
        let more = this.next().await.expect("it begins");
        assert!(more, "there is more than one part");
        this
    }

    /// Reads the next message; false after the last.
    async fn next(&mut self) -> Result<bool, Status> {
        match &mut self.stream {
            Stream::Export(stream) => match stream.message().await? {
                Some(chunk) => {
                    self.calls.extend(chunk.voice_calls);
                    Ok(true)
                }
                None => Ok(false),
            },
            Stream::Watch(watcher) => match watcher.next().await? {
                Message::SnapshotChunk(chunk) => {
                    self.calls.extend(chunk.voice_calls);
                    Ok(true)
                }
                Message::SnapshotComplete(_) => Ok(false),
                other => panic!("{other:?} in the snapshot"),
            },
        }
    }

    async fn rest(&mut self) -> Result<(), Status> {
        let what = self.what;
        let rest = async {
            while self.next().await? {}
            Ok(())
        };
        let rest = timeout(PATIENCE, rest).await;
        rest.unwrap_or_else(|_| panic!("the {what} neither ends nor goes on"))
    }

    /// Reads the stream to its end, and returns that.
    async fn end(mut self, when: &str) -> Result<(), Status> {
        let end = self.rest().await;
        let summary = end.as_ref().map_err(|status| facts(status).1);
        println!(
            "{} of the lost branch, read on {when}: {summary:?}",
            self.what
        );
        end
    }

    /// Asserts that the stream, which began before the fork, is reset or complete and
    /// consistent.
    async fn ends_or_is_of(mut self, kept: &[VoiceCall]) {
        let end = self.rest().await;
        let summary = end.as_ref().map_err(|status| facts(status).1);
        println!("{} from before the fork: {summary:?}", self.what);
        if let Err(status) = end {
            return assert_is_reset(status);
        }
        let by_uid = |calls: &[VoiceCall]| -> BTreeMap<String, VoiceCall> {
            let calls = calls.iter().cloned();
            calls.map(|call| (call.uid.clone(), call)).collect()
        };
        assert_eq!(self.calls.len(), kept.len());
        assert!(
            by_uid(&self.calls) == by_uid(kept),
            "the {} shows changes",
            self.what
        );
    }
}

/// Asserts that the client has to start anew, or to reconnect.
fn assert_is_reset(status: Status) {
    if status.code() != Code::Unavailable {
        let status = Err::<(), _>(status);
        assert_refused(status, Code::FailedPrecondition, "FEED_RESET", &[]);
    }
}

/// Waits until the service uses next to no processor time.
async fn is_idle(service: &Process) {
    let pid = service.child.id();
    let mut looks = interval(Duration::from_secs(1));
    looks.tick().await;
    let mut before = processor_seconds(pid);
    within(LONGEST_PAUSE, "the service is idle", async || {
        looks.tick().await;
        let now = processor_seconds(pid);
        let used = now - before;
        before = now;
        println!("the service uses {used:.2} s of a processor in one second");
        used < IDLE_SHARE
    })
    .await;
}

/// The processor time that a process has used so far.
fn processor_seconds(pid: u32) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields = stat.rsplit_once(") ").expect("its name is in brackets").1;
    let ticks = fields.split(' ').skip(11).take(2);
    ticks
        .map(|ticks| ticks.parse::<f64>().expect("a number"))
        .sum::<f64>()
        / TICKS_PER_SECOND
}

/// Prints how long no write was acknowledged, right after one was.
pub(super) fn print_pause(what: &str, last_write: Instant, writable: Instant) {
    let (all, after) = (last_write.elapsed(), writable.elapsed());
    println!(
        "{what}: no writes for {:.2} s, of which {:.2} s with a writable server",
        all.as_secs_f64(),
        after.as_secs_f64(),
    );
    assert!(
        after <= LONGEST_PAUSE,
        "{what}: writes go on only after {after:?}"
    );
}
