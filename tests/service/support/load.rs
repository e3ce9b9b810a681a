//! A random load: many clients on two replicas that create, change, read and import
//! calls, some of them the same calls, and check every response against the responses
//! they had before.
//!
//! A write with a request id is retried until its outcome is known. A write without
//! one is dropped from the checks when its outcome is unknown. Violations are
//! recorded in the tally.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{task::JoinSet, time::interval};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use voicecall::proto::{self, VoiceCall, VoiceCallStatus};

use super::{
    Client, finish_within, inbound, load_reads,
    server::client,
    tally::Tally,
    writes::{Write, batch_of},
};

/// How many clients storms have that are to keep everything busy.
pub(crate) const CLIENTS: u64 = 64;
/// How many calls all clients write to.
const HOT_CALLS: u128 = 16;
/// How many calls each client remembers, to change and read them again.
const OWN_CALLS: usize = 50;
/// A repeated request, a history or an export whose changes have left the log.
pub(crate) const TOO_LATE: &str = "requests that came too late for the log";
/// The deadline of each request.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// The uid of one of the calls that all clients write to.
pub(crate) fn hot_uid(number: u128) -> String {
    uuid::Uuid::from_u128(number % HOT_CALLS).to_string()
}

/// How long the load runs: 10 seconds, or VOICECALL_TEST_SECONDS.
pub(crate) fn busy_time() -> Duration {
    let seconds = std::env::var("VOICECALL_TEST_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(10))
}

/// An acknowledged write with a request id.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) write: Write,
    pub(crate) calls: Vec<VoiceCall>,
}

/// The responses that clients got.
#[derive(Default)]
pub(crate) struct Observed {
    /// Every acknowledged write with a request id.
    pub(crate) named: Vec<Answered>,
    /// Every call in the responses to writes without a request id, to imports and to
    /// look-ups.
    pub(crate) seen: Vec<VoiceCall>,
}

impl Observed {
    /// Every state of a call that was acknowledged or read.
    pub(crate) fn states(&self) -> Vec<VoiceCall> {
        let named = self.named.iter().flat_map(|answered| &answered.calls);
        named.chain(&self.seen).cloned().collect()
    }

    /// Records revisions that two calls have.
    pub(crate) fn check_revisions(&self, tally: &Tally) {
        let mut uids: HashMap<i64, &str> = HashMap::new();
        let named = self.named.iter().flat_map(|answered| &answered.calls);
        for call in named.chain(&self.seen) {
            let first = uids.entry(call.revision).or_insert(&call.uid);
            if *first != call.uid {
                tally.violation("a revision assigned twice", || {
                    format!("{}: {first} and {}", call.revision, call.uid)
                });
            }
        }
    }
}

/// The running clients.
pub(crate) struct Load {
    clients: JoinSet<Observed>,
    stop: CancellationToken,
    give_up: CancellationToken,
}

impl Load {
    /// Starts so many clients on two replicas.
    pub(crate) fn start(replicas: [&str; 2], clients: u64, seed: u64, tally: &Arc<Tally>) -> Self {
        let (stop, give_up) = (CancellationToken::new(), CancellationToken::new());
        let mut running = JoinSet::new();
        for number in 0..clients {
            let client = LoadClient {
                random: StdRng::seed_from_u64(seed.wrapping_add(number)),
                replicas: replicas.map(client),
                home: usize::try_from(number % 2).expect("small"),
                own: Vec::new(),
                observed: Observed::default(),
                tally: Arc::clone(tally),
                give_up: give_up.clone(),
            };
            running.spawn(client.run(stop.clone()));
        }
        Self {
            clients: running,
            stop,
            give_up,
        }
    }

    /// Stops the clients. Those that still retry after `patience` give up.
    pub(crate) async fn finish(mut self, patience: Duration) -> Observed {
        self.stop.cancel();
        let mut all = Observed::default();
        let collect = async {
            while let Some(observed) = self.clients.join_next().await {
                let observed = observed.expect("no client panics");
                all.named.extend(observed.named);
                all.seen.extend(observed.seen);
            }
        };
        finish_within(patience, collect, || self.give_up.cancel()).await;
        all
    }
}

/// A call as one client last saw it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) uid: String,
    /// The newest revision that the client saw.
    pub(super) revision: i64,
}

/// One client.
pub(super) struct LoadClient {
    pub(super) random: StdRng,
    pub(super) replicas: [Client; 2],
    /// The replica that it sends its writes to.
    home: usize,
    pub(super) own: Vec<Known>,
    pub(super) observed: Observed,
    pub(super) tally: Arc<Tally>,
    give_up: CancellationToken,
}

impl LoadClient {
    async fn run(mut self, stop: CancellationToken) -> Observed {
        while !stop.is_cancelled() {
            match self.random.random_range(0..100) {
                0..70 => self.write().await,
                70..98 => self.read().await,
                _ => self.import().await,
            }
        }
        self.observed
    }

    async fn write(&mut self) {
        let has_request_id = self.random.random_bool(0.8);
        let request_id = if has_request_id {
            uuid::Uuid::from_u128(self.random.random()).to_string()
        } else {
            String::new()
        };
        let write = self.any_write(request_id);
        let home = &mut self.replicas[self.home];
        let answer =
            send_until_known(&write, home, has_request_id, &self.tally, &self.give_up).await;
        let calls = match answer {
            Some(Ok(calls)) => calls,
            Some(Err(status)) => return self.check_refusal(&write, &status),
            None => return,
        };
        self.tally.add("writes acknowledged", 1);
        for call in &calls {
            self.learn(call);
        }
        if !has_request_id {
            self.observed.seen.extend(calls.iter().cloned());
        } else {
            let answered = Answered {
                write,
                calls: calls.clone(),
            };
            if self.random.random_bool(0.1) {
                let other = &mut self.replicas[1 - self.home];
                repeat(&answered, other, &self.tally, &self.give_up).await;
            }
            self.observed.named.push(answered);
            if self.random.random_bool(0.1) {
                // One of long ago.
                let place = self.random.random_range(0..self.observed.named.len());
                let replica = &mut self.replicas[self.random.random_range(0..2)];
                let earlier = &self.observed.named[place];
                repeat(earlier, replica, &self.tally, &self.give_up).await;
            }
        }
        if let Some(call) = calls.first()
            && self.random.random_bool(0.3)
        {
            let known = Known {
                uid: call.uid.clone(),
                revision: call.revision,
            };
            load_reads::get(self, known).await;
        }
    }

    async fn read(&mut self) {
        if self.own.is_empty() {
            return;
        }
        let known = self.own[self.random.random_range(0..self.own.len())].clone();
        match self.random.random_range(0..10) {
            0..5 => load_reads::get(self, known).await,
            5..7 => load_reads::batch_get(self).await,
            7..9 => load_reads::list(self, known).await,
            _ => load_reads::stats(self).await,
        }
    }

    async fn import(&mut self) {
        let count = self.random.random_range(2..10);
        load_reads::import(self, count).await;
    }

    /// Remembers the newest revision of a call.
    pub(super) fn learn(&mut self, call: &VoiceCall) {
        let known = Known {
            uid: call.uid.clone(),
            revision: call.revision,
        };
        if let Some(own) = self.own.iter_mut().find(|own| own.uid == call.uid) {
            own.revision = own.revision.max(call.revision);
        } else if self.own.len() < OWN_CALLS {
            self.own.push(known);
        } else {
            let place = self.random.random_range(0..OWN_CALLS);
            self.own[place] = known;
        }
    }

    /// A write may be refused because of the state of its call. But a call that
    /// existed before is never missing, and a new call is never a duplicate.
    fn check_refusal(&self, write: &Write, status: &Status) {
        match (status.code(), write.uid()) {
            // It was applied, and its response was lost.
            (Code::OutOfRange, _) => self.tally.add(TOO_LATE, 1),
            (Code::NotFound, Some(uid)) if self.own.iter().any(|own| own.uid == uid) => {
                self.tally
                    .violation("an acknowledged call is not found by a write", || {
                        format!("{write:?}: {status}")
                    });
            }
            (_, None) => {
                self.tally
                    .violation("a new call is refused", || format!("{write:?}: {status}"));
            }
            _ => {}
        }
    }

    fn any_write(&mut self, request_id: String) -> Write {
        let random = &mut self.random;
        let uid = if self.own.is_empty() || random.random_bool(0.3) {
            hot_uid(random.random_range(0..HOT_CALLS))
        } else {
            self.own[random.random_range(0..self.own.len())].uid.clone()
        };
        let changed = VoiceCall {
            uid: uid.clone(),
            ..closed_call(random)
        };
        match random.random_range(0..20) {
            0..7 => Write::Create(proto::CreateVoiceCallRequest {
                voice_call: Some(VoiceCall {
                    // Chosen by the client or by the server.
                    uid: match random.random_bool(0.5) {
                        true => uuid::Uuid::from_u128(random.random()).to_string(),
                        false => String::new(),
                    },
                    ..changed
                }),
                request_id,
                ..Default::default()
            }),
            7 => {
                let count = random.random_range(2..10);
                let calls = (0..count).map(|_| closed_call(random)).collect();
                match batch_of(calls) {
                    Write::BatchCreate(request) => {
                        Write::BatchCreate(proto::BatchCreateVoiceCallsRequest {
                            request_id,
                            ..request
                        })
                    }
                    other => other,
                }
            }
            8..14 => Write::Update(proto::UpdateVoiceCallRequest {
                voice_call: Some(changed),
                allow_missing: random.random_bool(0.5),
                request_id,
                ..Default::default()
            }),
            14..16 => Write::Handle(proto::HandleVoiceCallRequest {
                uid,
                handled_by_staff_uid: format!("staff-{}", random.random_range(0..2)),
                request_id,
                ..Default::default()
            }),
            16..18 => Write::Delete(proto::DeleteVoiceCallRequest {
                uid,
                allow_missing: random.random_bool(0.5),
                request_id,
                ..Default::default()
            }),
            _ => Write::Undelete(proto::UndeleteVoiceCallRequest {
                uid,
                request_id,
                ..Default::default()
            }),
        }
    }
}

/// A new call with a closed status.
pub(crate) fn closed_call(random: &mut StdRng) -> VoiceCall {
    let closed = [
        VoiceCallStatus::AnsweredByStaff,
        VoiceCallStatus::Missed,
        VoiceCallStatus::AnsweredByVonage,
    ];
    VoiceCall {
        status: closed[random.random_range(0..closed.len())].into(),
        duration: Some(random.random_range(0..3)),
        ..inbound()
    }
}

/// Sends a write. With a request id, it is retried until its outcome is known.
/// `None`: the outcome is unknown.
pub(crate) async fn send_until_known(
    write: &Write,
    client: &mut Client,
    has_request_id: bool,
    tally: &Tally,
    give_up: &CancellationToken,
) -> Option<Result<Vec<VoiceCall>, Status>> {
    let mut pause = interval(Duration::from_millis(20));
    while !give_up.is_cancelled() {
        pause.tick().await;
        let status = match write.clone().send_within(client, Some(DEADLINE)).await {
            Ok(calls) => {
                tally.answer(write.kind(), Code::Ok);
                return Some(Ok(calls));
            }
            Err(status) => status,
        };
        tally.answer(write.kind(), status.code());
        match status.code() {
            Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition => {
                return Some(Err(status));
            }
            Code::OutOfRange if reason(&status) == "REVISION_COMPACTED" => {
                return Some(Err(status));
            }
            // tonic says Cancelled when the deadline passes on the client first.
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::ResourceExhausted => {}
            Code::Unknown if !has_request_id => {}
            _ => unexpected(tally, write.kind(), &status),
        }
        if !has_request_id {
            return None;
        }
    }
    tally.add("writes still unknown at the end", 1);
    None
}

/// Repeats a write, and expects the same response.
pub(crate) async fn repeat(
    answered: &Answered,
    client: &mut Client,
    tally: &Tally,
    give_up: &CancellationToken,
) {
    let again = send_until_known(&answered.write, client, true, tally, give_up).await;
    match again {
        Some(Ok(calls)) if calls == answered.calls => tally.add("repeated requests checked", 1),
        None => tally.add("repeated requests not answered", 1),
        Some(Err(status)) if status.code() == Code::OutOfRange => tally.add(TOO_LATE, 1),
        other => tally.violation("a repeated request with another response", || {
            format!("{answered:?}, now {other:?}")
        }),
    }
}

/// The reason in an error's details; errors of the transport have none.
pub(crate) fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info();
    info.map_or_else(String::new, |info| info.reason.clone())
}

/// Records a status that is never correct.
pub(crate) fn unexpected(tally: &Tally, kind: &str, status: &Status) {
    let what = match status.code() {
        Code::Internal => "INTERNAL",
        _ => "an unexpected status",
    };
    tally.violation(what, || {
        let (code, message) = (status.code(), status.message());
        format!("{kind}: {code:?} {}: {message}", reason(status))
    });
}
