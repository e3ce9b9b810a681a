//! Clients that create calls all the while, and what the service answered.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_postgres::Client as Database;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use voicecall::proto::{CreateVoiceCallRequest, VoiceCall};

use super::{LONGEST_PAUSE, within};
use crate::support::{Client, inbound, ledger::check_ledger, request_id, server::Process};

/// The deadline of one attempt.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// How often a client writes, at most.
const WRITE_EVERY: Duration = Duration::from_millis(10);
/// One in so many writes carries no request id, and is not repeated.
const UNNAMED: u32 = 5;
/// How many acknowledged writes are repeated at the end.
const MAX_REPEATS: usize = 1_000;

/// Clients that write until the load is stopped.
pub(super) struct Load {
    started: Instant,
    stop: CancellationToken,
    clients: Vec<AbortOnDropHandle<Answers>>,
    /// When each write was acknowledged.
    acknowledged_at: Arc<Mutex<Vec<Instant>>>,
}

/// What the service answered to the clients.
#[derive(Default)]
pub(super) struct Answers {
    /// Each write that was acknowledged.
    acknowledged: Vec<(CreateVoiceCallRequest, VoiceCall)>,
    /// The writes with a request id that were not yet acknowledged when their client
    /// stopped.
    open: Vec<CreateVoiceCallRequest>,
    /// How often each error was returned.
    errors: BTreeMap<String, u32>,
}

impl Load {
    /// Starts this many clients of the service.
    pub(super) fn start(service: &Process, clients: u32) -> Self {
        let stop = CancellationToken::new();
        let acknowledged_at = Arc::<Mutex<Vec<Instant>>>::default();
        let clients = (0..clients)
            .map(|_| {
                let run = write_until(stop.clone(), service.client(), Arc::clone(&acknowledged_at));
                AbortOnDropHandle::new(tokio::spawn(run))
            })
            .collect();
        Self {
            started: Instant::now(),
            stop,
            clients,
            acknowledged_at,
        }
    }

    /// How many writes have been acknowledged after `since`.
    pub(super) fn count_since(&self, since: Instant) -> usize {
        let times = self.acknowledged_at.lock().expect("no client panics");
        times.iter().filter(|time| **time >= since).count()
    }

    /// Waits until this many writes have been acknowledged from now on.
    pub(super) async fn wait_for(&self, count: usize) {
        let now = Instant::now();
        let what = "writes are acknowledged";
        within(2 * LONGEST_PAUSE, what, async || {
            self.count_since(now) >= count
        })
        .await;
    }

    /// Waits for the first write that is acknowledged after `writable`, when a server
    /// took writes again; prints how long no write was acknowledged, and asserts that
    /// it was not too long after `writable`.
    pub(super) async fn expect_writes_to_resume(&self, what: &str, writable: Instant) {
        let reason = format!("writes go on after this: {what}");
        within(3 * LONGEST_PAUSE, &reason, async || {
            self.count_since(writable) > 0
        })
        .await;
        let (last, first) = {
            let times = self.acknowledged_at.lock().expect("no client panics");
            let last = times.iter().filter(|time| **time < writable).max();
            let first = times.iter().filter(|time| **time >= writable).min();
            // If none was acknowledged before, the clients have waited since they
            // started.
            let last = last.copied().unwrap_or(self.started);
            (last, *first.expect("just seen"))
        };
        println!(
            "{what}: no writes for {:.2} s, of which {:.2} s with a writable server",
            (first - last).as_secs_f64(),
            (first - writable).as_secs_f64(),
        );
        assert!(
            first - writable <= LONGEST_PAUSE,
            "{what}: writes go on only after {:?}",
            first - writable
        );
        self.wait_for(100).await;
    }

    /// Stops the clients.
    pub(super) async fn stop(self) -> Answers {
        self.stop.cancel();
        let mut all = Answers::default();
        for client in self.clients {
            let answers = client.await.expect("no client panics");
            all.acknowledged.extend(answers.acknowledged);
            all.open.extend(answers.open);
            for (error, count) in answers.errors {
                *all.errors.entry(error).or_default() += count;
            }
        }
        all
    }
}

impl Answers {
    /// Checks that the database has every acknowledged write, and none twice; that
    /// the service answers a repeated request as it did before; and that requests
    /// without an acknowledgement can be repeated, with the same response each time.
    pub(super) async fn check(&self, what: &str, database: &Database, client: &mut Client) {
        println!(
            "{what}: {} writes acknowledged, {} left open, errors: {:?}",
            self.acknowledged.len(),
            self.open.len(),
            self.errors
        );
        let calls: Vec<VoiceCall> = self.calls();
        check_ledger(database, &calls).await;
        let named = |(request, _): &&(CreateVoiceCallRequest, _)| !request.request_id.is_empty();
        // The last ones are those around the failure, or after it.
        let repeats = self.acknowledged.iter().rev().filter(named);
        for (request, call) in repeats.take(MAX_REPEATS) {
            let again = create_until_known(client, request).await;
            assert_eq!(again, *call, "a request is answered as before");
        }
        let mut settled = calls;
        for request in &self.open {
            let call = create_until_known(client, request).await;
            let again = create_until_known(client, request).await;
            assert_eq!(again, call, "a request is answered as before");
            settled.push(call);
        }
        check_ledger(database, &settled).await;
    }

    /// The calls that were acknowledged.
    pub(super) fn calls(&self) -> Vec<VoiceCall> {
        let calls = self.acknowledged.iter();
        calls.map(|(_, call)| call.clone()).collect()
    }
}

async fn write_until(
    stop: CancellationToken,
    mut client: Client,
    acknowledged_at: Arc<Mutex<Vec<Instant>>>,
) -> Answers {
    let mut answers = Answers::default();
    let mut pause = interval(WRITE_EVERY);
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0u32.. {
        let is_named = number % UNNAMED != 0;
        let request = create_request(if is_named {
            request_id()
        } else {
            String::new()
        });
        loop {
            pause.tick().await;
            let answer = tokio::select! {
                answer = create_once(&mut client, &request) => Some(answer),
                () = stop.cancelled() => None,
            };
            match answer {
                Some(Ok(call)) => {
                    let mut times = acknowledged_at.lock().expect("no client panics");
                    times.push(Instant::now());
                    answers.acknowledged.push((request, call));
                    break;
                }
                Some(Err(status)) => {
                    *answers.errors.entry(transient_error(&status)).or_default() += 1;
                    if !is_named {
                        break;
                    }
                }
                None => {
                    answers.open.extend(is_named.then_some(request));
                    return answers;
                }
            }
        }
    }
    answers
}

/// A request to create an inbound call.
pub(super) fn create_request(request_id: String) -> CreateVoiceCallRequest {
    CreateVoiceCallRequest {
        voice_call: Some(inbound()),
        request_id,
        ..Default::default()
    }
}

/// One attempt, with a deadline.
pub(super) async fn create_once(
    client: &mut Client,
    request: &CreateVoiceCallRequest,
) -> Result<VoiceCall, Status> {
    let mut request = Request::new(request.clone());
    request.set_timeout(ANSWER_TIMEOUT);
    let response = client.create_voice_call(request).await?;
    Ok(response.into_inner().voice_call.expect("it is answered"))
}

/// Repeats the request until it is acknowledged. Asserts that every error before
/// that is a transient one.
pub(super) async fn create_until_known(
    client: &mut Client,
    request: &CreateVoiceCallRequest,
) -> VoiceCall {
    let deadline = Instant::now() + 3 * LONGEST_PAUSE;
    let mut pause = interval(WRITE_EVERY);
    loop {
        pause.tick().await;
        match create_once(client, request).await {
            Ok(call) => return call,
            Err(status) => {
                let error = transient_error(&status);
                assert!(Instant::now() < deadline, "still {error}: {request:?}");
            }
        }
    }
}

/// The code and reason of an error. Asserts that it is one that a client must expect
/// during a failover.
#[track_caller]
pub(super) fn transient_error(status: &Status) -> String {
    let details = status.get_error_details();
    let reason = details.error_info().map_or("", |info| &info.reason);
    let is_transient = match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => true,
        Code::Unknown => reason == "OUTCOME_UNKNOWN",
        // The client's own deadline.
        Code::Cancelled => reason.is_empty(),
        _ => false,
    };
    assert!(is_transient, "not a transient error: {status:?}");
    format!("{:?} {reason}", status.code())
}
