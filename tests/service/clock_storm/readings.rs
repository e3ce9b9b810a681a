//! Lists, statistics, histories and exports, each of which says at which revision it is
//! true. When the storm is over they are held against the fold of the recorded log at that
//! revision.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status};
use voicecall::{
    domain::{Filter, Uuid},
    proto::{
        EventBatch, ExportVoiceCallsRequest, GetVoiceCallStatsRequest, ListVoiceCallChangesRequest,
        ListVoiceCallsRequest, VoiceCall, VoiceCallFilter, VoiceCallStatsGroup,
        list_voice_call_changes_request::Start, watch_voice_calls_response::Message,
    },
};

use crate::support::{
    Client,
    history::{FinalLog, Listed, Session, check_snapshot, revision_of, validate},
    inbound,
    load::{DEADLINE, TOO_LATE, hot_uid, reason, send_until_known, unexpected},
    server::{client, narrow_client},
    tally::Tally,
    writes::{batch_of, delete_of, undelete_of, update_of, within},
};

/// Calls that are so large that an export has many chunks.
const LARGE_CALLS: u128 = 1_000;
const SUMMARY_LEN: usize = 2_000;
/// A change of one of them, at most so often.
const CHANGE_EVERY: Duration = Duration::from_millis(100);
const READ_EVERY: Duration = Duration::from_millis(50);
const EXPORT_EVERY: Duration = Duration::from_secs(2);
/// How long an export does not read, at most, between two chunks.
const NAP_MILLIS: u64 = 1_500;
const EXPORT_TIME: Duration = Duration::from_secs(300);
/// How many revisions back a history begins, at most: mostly few enough that the log has
/// them, sometimes up to eight times as many.
const HISTORY_LEN: i64 = 3_000;
/// How many pages of a history are read.
const PAGES: usize = 10;

/// What was read, and what it is said to be.
pub(super) enum Reading {
    /// All calls of a view at a revision, in the order of a snapshot.
    Export(Filter, i64, Vec<Listed>),
    /// All calls of a view at a revision.
    List(Filter, i64, Vec<Listed>),
    /// How many calls there are that are not deleted, at a revision.
    Count(i64, i64),
    /// The events of a view.
    History(Filter, Session),
}

/// Holds what was read against the log; `counts` has how many calls there were at each
/// revision.
pub(super) fn check(log: &FinalLog, counts: &[i64], readings: &[Reading], tally: &Tally) {
    for reading in readings {
        let (what, result) = match reading {
            Reading::Export(filter, revision, calls) => {
                let result = check_snapshot(log, filter, calls, *revision);
                ("exports checked", result)
            }
            Reading::List(filter, revision, calls) => {
                let found = calls.iter().map(|call| (call.uid, call.revision));
                let found: BTreeMap<_, _> = found.collect();
                let expected = log.calls(filter, *revision);
                let is_right = found == expected && calls.len() == found.len();
                let error = || format!("{found:?} instead of {expected:?} at {revision}");
                ("lists checked", is_right.then_some(()).ok_or_else(error))
            }
            Reading::Count(revision, count) => {
                let place = usize::try_from(*revision).expect("it fits");
                let expected = counts[place];
                let error = || format!("{count} instead of {expected} calls at {revision}");
                let is_right = *count == expected;
                (
                    "statistics checked",
                    is_right.then_some(()).ok_or_else(error),
                )
            }
            Reading::History(filter, session) => {
                let result = validate(log, filter, std::slice::from_ref(session));
                ("histories checked", result.map(drop))
            }
        };
        tally.add(what, 1);
        if let Err(why) = result {
            tally.violation("a read that is not the fold of the log", || {
                format!("{what}: {why}")
            });
        }
    }
}

/// The calls that are large.
fn large_uid(number: u128) -> String {
    Uuid::from_u128(u128::from(u64::MAX) + number % LARGE_CALLS).to_string()
}

fn large_call(number: u128, text: char) -> VoiceCall {
    VoiceCall {
        uid: large_uid(number),
        call_summary: Some(text.to_string().repeat(SUMMARY_LEN)),
        ..inbound()
    }
}

/// Creates the large calls.
pub(super) async fn create_large_calls(endpoint: &str) {
    let mut client = client(endpoint);
    let numbers: Vec<u128> = (0..LARGE_CALLS).collect();
    for numbers in numbers.chunks(100) {
        let calls = numbers.iter().map(|number| large_call(*number, 'a'));
        let created = batch_of(calls.collect()).send(&mut client).await;
        created.expect("they are new");
    }
}

/// Changes the large calls until it is stopped.
pub(super) async fn change(
    seed: u64,
    replicas: [String; 2],
    tally: Arc<Tally>,
    stop: CancellationToken,
) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut clients = [client(&replicas[0]), client(&replicas[1])];
    let mut pause = interval(CHANGE_EVERY);
    while !stop.is_cancelled() {
        pause.tick().await;
        let number = random.random_range(0..LARGE_CALLS);
        let write = match random.random_range(0..4) {
            0 => delete_of(&large_uid(number), true),
            1 => undelete_of(&large_uid(number)),
            _ => update_of(large_call(number, random.random_range('a'..='z'))),
        };
        let replica = &mut clients[random.random_range(0..2)];
        // Refusals are part of it: the call may be deleted.
        send_until_known(&write, replica, true, &tally, &CancellationToken::new()).await;
    }
}

/// One that reads.
pub(super) struct Reader {
    random: StdRng,
    endpoints: [String; 2],
    clients: [Client; 2],
    /// The newest revision that it knows.
    head: i64,
    tally: Arc<Tally>,
    readings: Vec<Reading>,
}

impl Reader {
    pub(super) fn new(seed: u64, replicas: &[String; 2], tally: &Arc<Tally>) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            endpoints: replicas.clone(),
            clients: [client(&replicas[0]), client(&replicas[1])],
            head: 0,
            tally: Arc::clone(tally),
            readings: Vec::new(),
        }
    }

    /// Reads lists, statistics and histories until it is stopped.
    pub(super) async fn read(mut self, stop: CancellationToken) -> Vec<Reading> {
        let mut pause = interval(READ_EVERY);
        while !stop.is_cancelled() {
            pause.tick().await;
            match self.random.random_range(0..4) {
                0 => self.list().await,
                1 => self.count().await,
                _ => self.history().await,
            }
        }
        self.readings
    }

    /// Exports all calls until it is stopped, mostly slowly.
    pub(super) async fn export(mut self, stop: CancellationToken) -> Vec<Reading> {
        let mut pause = interval(EXPORT_EVERY);
        while !stop.is_cancelled() {
            pause.tick().await;
            let start = Instant::now();
            match timeout(EXPORT_TIME, self.export_one(&stop)).await {
                Ok(Ok(Some(reading))) => self.readings.push(reading),
                // The storm was over first.
                Ok(Ok(None)) => {}
                Ok(Err(status)) => self.note("export", &status),
                Err(_) => self.tally.violation("an export that does not end", || {
                    format!("in {:?}", start.elapsed())
                }),
            }
        }
        self.readings
    }

    fn client(&mut self) -> Client {
        self.clients[self.random.random_range(0..2)].clone()
    }

    /// Takes note of an error, which must be one that there may be.
    fn note(&self, kind: &'static str, status: &Status) {
        self.tally.answer(kind, status.code());
        match (status.code(), reason(status).as_str()) {
            (Code::OutOfRange, "REVISION_COMPACTED")
            | (Code::ResourceExhausted, "WATCHER_TOO_SLOW") => self.tally.add(TOO_LATE, 1),
            (
                Code::Unavailable
                | Code::ResourceExhausted
                | Code::DeadlineExceeded
                | Code::Cancelled,
                _,
            )
            | (Code::FailedPrecondition, "REVISION_NOT_REACHED") => {}
            _ => unexpected(&self.tally, kind, status),
        }
    }

    fn answer<T>(&self, kind: &'static str, result: Result<Response<T>, Status>) -> Option<T> {
        match result {
            Ok(response) => {
                self.tally.answer(kind, Code::Ok);
                Some(response.into_inner())
            }
            Err(status) => {
                self.note(kind, &status);
                None
            }
        }
    }

    /// A filter of some calls, as it is sent and as it is checked.
    fn some_calls(&mut self, count: usize) -> (VoiceCallFilter, Filter) {
        let uid = |random: &mut StdRng| match random.random_bool(0.5) {
            true => hot_uid(random.random_range(0..1_000)),
            false => large_uid(random.random_range(0..1_000)),
        };
        let mut uids: Vec<String> = (0..count).map(|_| uid(&mut self.random)).collect();
        uids.sort();
        uids.dedup();
        let show_deleted = self.random.random_bool(0.5);
        let filter = Filter {
            uids: uids.iter().map(|uid| uid.parse().expect("good")).collect(),
            show_deleted,
            ..Filter::default()
        };
        let wire = VoiceCallFilter {
            uids,
            show_deleted,
            ..Default::default()
        };
        (wire, filter)
    }

    async fn list(&mut self) {
        let (wire, filter) = self.some_calls(20);
        let order_by = ["", "updated_at", "created_at"][self.random.random_range(0..3)];
        let request = ListVoiceCallsRequest {
            filter: Some(wire),
            order_by: order_by.into(),
            page_size: 1_000,
            min_revision: self.head,
            ..Default::default()
        };
        let result = self
            .client()
            .list_voice_calls(within(request, Some(DEADLINE)))
            .await;
        let Some(page) = self.answer("list of some calls", result) else {
            return;
        };
        if !page.next_page_token.is_empty() {
            // It is checked as a whole only.
            return;
        }
        self.head = self.head.max(page.revision);
        let calls = page.voice_calls.iter().map(Listed::from).collect();
        self.readings
            .push(Reading::List(filter, page.revision, calls));
    }

    async fn count(&mut self) {
        let is_grouped = self.random.random_bool(0.5);
        let groups = [VoiceCallStatsGroup::Status, VoiceCallStatsGroup::Direction];
        let request = GetVoiceCallStatsRequest {
            group_by: groups
                .iter()
                .filter(|_| is_grouped)
                .map(|&one| one.into())
                .collect(),
            page_size: 1_000,
            min_revision: self.head,
            ..Default::default()
        };
        let result = self
            .client()
            .get_voice_call_stats(within(request, Some(DEADLINE)))
            .await;
        let Some(stats) = self.answer("statistics of all calls", result) else {
            return;
        };
        self.head = self.head.max(stats.revision);
        let sum: i64 = stats.rows.iter().map(|row| row.count).sum();
        for count in [sum, stats.total_count] {
            self.readings.push(Reading::Count(stats.revision, count));
        }
    }

    /// Some pages of the history of some calls.
    async fn history(&mut self) {
        if self.head == 0 {
            return self.list().await;
        }
        let count = self.random.random_range(1..4);
        let (wire, filter) = self.some_calls(count);
        let most = HISTORY_LEN << self.random.random_range(0..4);
        let from = (self.head - self.random.random_range(0..most)).max(0);
        let mut start = Start::AfterRevision(from);
        let mut session = Session {
            resumed_from: Some(from),
            ..Session::default()
        };
        let mut client = self.client();
        for _ in 0..PAGES {
            let request = ListVoiceCallChangesRequest {
                filter: Some(wire.clone()),
                start: Some(start.clone()),
                page_size: self.random.random_range(1..200),
                min_revision: self.head,
            };
            let result = client.list_voice_call_changes(within(request, Some(DEADLINE)));
            let Some(page) = self.answer("history", result.await) else {
                break;
            };
            let reached = revision_of(&page.resume_token);
            if page.caught_up && reached < self.head {
                self.tally.violation("a history that ends too early", || {
                    format!("caught up at {reached}, after {}", self.head)
                });
            }
            start = Start::ResumeToken(page.resume_token.clone());
            let mut batch = EventBatch::default();
            (batch.events, batch.resume_token) = (page.events, page.resume_token);
            session.seen.push(Message::EventBatch(batch));
            if page.caught_up {
                break;
            }
            // Another replica goes on where this one ends.
            client = self.client();
        }
        if !session.seen.is_empty() {
            self.readings.push(Reading::History(filter, session));
        }
    }

    /// `None`: the storm was over first.
    async fn export_one(&mut self, stop: &CancellationToken) -> Result<Option<Reading>, Status> {
        let filter = Filter {
            show_deleted: self.random.random_bool(0.5),
            ..Filter::default()
        };
        let request = ExportVoiceCallsRequest {
            filter: Some(VoiceCallFilter {
                show_deleted: filter.show_deleted,
                ..Default::default()
            }),
            ..Default::default()
        };
        let is_slow = self.random.random_bool(0.7);
        let endpoint = &self.endpoints[self.random.random_range(0..2)];
        let mut client = match is_slow {
            true => narrow_client(endpoint),
            false => client(endpoint),
        };
        let mut chunks = client.export_voice_calls(request).await?.into_inner();
        let (mut revision, mut calls) = (0, Vec::new());
        while let Some(chunk) = chunks.message().await? {
            revision = chunk.revision;
            calls.extend(chunk.voice_calls.iter().map(Listed::from));
            if is_slow {
                let nap = Duration::from_millis(self.random.random_range(0..NAP_MILLIS));
                if timeout(nap, stop.cancelled()).await.is_ok() {
                    return Ok(None);
                }
            }
        }
        self.tally.answer("export", Code::Ok);
        Ok(Some(Reading::Export(filter, revision, calls)))
    }
}
