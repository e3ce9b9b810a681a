//! Wall clocks that are wrong: of the database's host, of the service's, or of both, for a
//! moment or for long, by seconds or by years.
//!
//! - `steps`: writes go on after a step
//! - `request_ids`: nothing is forgotten early because of a step
//! - `read_time`: what a checkpoint says of the time stays true
//! - `created_at`: the five minutes that a call may be ahead are the database's
//!
//! The clocks are set by libfaketime (`support/clock.rs`). Where it is missing the tests
//! say so, and fail if `CI` is `true`.

mod created_at;
mod read_time;
mod request_ids;
mod steps;

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, SystemTime},
};

use futures_util::stream;
use tokio::time::{Instant, interval};
use tonic::{Code, Status};
use voicecall::proto::{
    ImportRecord, ImportSettings, ImportVoiceCallsRequest, VoiceCall,
    import_voice_calls_request::Message, import_voice_calls_response::Result as Answer,
};

use crate::support::{
    Client,
    clock::Clock,
    inbound,
    postgres::Cluster,
    retry_after,
    server::{Process, client},
    writes::{Write, create_of},
};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// How far a time may be from the true one after a step, in microseconds.
const NEAR: i64 = MINUTE * 1_000_000;

/// How soon writes must be accepted again once the clock is right.
const SOON: Duration = Duration::from_secs(10);
/// Writes in a row that prove it.
const ENOUGH: usize = 20;

/// Whose clock is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// That of the database's host; the service has another host.
    Database,
    /// That of the one host of both.
    Both,
}

/// A cluster with a clock to be set, a database in it, and what serves it.
struct Installation {
    wrong: Wrong,
    _cluster: Cluster,
    url: String,
    /// Last, so that it outlives the cluster's processes.
    clock: Clock,
}

impl Installation {
    /// One whose clock is right. `None`: clocks cannot be set here.
    async fn start(wrong: Wrong) -> Option<Self> {
        Self::start_at(wrong, 0).await
    }

    /// One that was never at the right time.
    async fn start_at(wrong: Wrong, seconds_ahead: i64) -> Option<Self> {
        let clock = Clock::new()?;
        clock.set(seconds_ahead);
        let cluster = blocking(|| Cluster::start_with_clock(&clock, &[]));
        let url = cluster.database().await;
        Some(Self {
            wrong,
            _cluster: cluster,
            url,
            clock,
        })
    }

    /// Starts a replica of the service.
    fn service(&self) -> Process {
        start(&self.environment())
    }

    /// Starts a replica while the clock may be wrong.
    fn launch(&self) -> Starting {
        let environment = self.environment();
        let (service, serving) = Process::launch(&borrowed(&environment));
        Starting { service, serving }
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = vec![("DATABASE_URL", self.url.clone())];
        if self.wrong == Wrong::Both {
            environment.extend(self.clock.for_service());
        }
        environment
    }

    /// Sets the clock so far ahead for `time`, and does something meanwhile; the clock is
    /// right again before that has to end.
    async fn step<T: Send + 'static>(
        &self,
        seconds_ahead: i64,
        time: Duration,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        self.clock.set(seconds_ahead);
        let work = tokio::spawn(work);
        pause(time).await;
        self.clock.set(0);
        work.await.expect("no panic")
    }
}

/// A replica that may wait for a clock that can be right before it serves.
struct Starting {
    service: Process,
    serving: Receiver<String>,
}

impl Starting {
    /// Whether it serves within a few seconds, with the clock as it is.
    fn serves(&mut self) -> bool {
        match blocking(|| self.serving.recv_timeout(Duration::from_secs(5))) {
            Ok(endpoint) => self.service.endpoint = endpoint,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                panic!("the server ended: {:#?}", self.service.log.lines())
            }
        }
        !self.service.endpoint.is_empty()
    }

    /// The replica once it serves, which must be soon because the clock is right.
    fn started(mut self) -> Process {
        if self.service.endpoint.is_empty() {
            let serving = blocking(|| self.serving.recv_timeout(2 * SOON));
            self.service.endpoint = serving.expect("it serves once the clock is right");
        }
        self.service
    }
}

/// Starts the service with this environment.
fn start(environment: &[(&str, String)]) -> Process {
    blocking(|| Process::start(&borrowed(environment)))
}

fn borrowed<'a>(environment: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    let pairs = environment.iter();
    pairs.map(|(name, value)| (*name, value.as_str())).collect()
}

/// Sends a write. A refusal must be one that passes, and say so: then `None`.
async fn attempt(client: &mut Client, write: Write) -> Option<Vec<VoiceCall>> {
    match write.clone().send(client).await {
        Ok(calls) => Some(calls),
        Err(status) => {
            expect_passing(&status, write.kind());
            None
        }
    }
}

fn expect_passing(status: &Status, what: &str) {
    assert!(
        status.code() == Code::Unavailable && retry_after(status).is_some(),
        "{what}: {status:?}"
    );
}

/// Imports a call of long ago. A refusal must be one that passes.
async fn attempt_import(mut client: Client) {
    let settings = Message::Settings(ImportSettings::default());
    let record = Message::Record(ImportRecord {
        sequence: 1,
        voice_call: Some(VoiceCall {
            uid: crate::support::request_id(),
            ..crate::support::reference()
        }),
    });
    let messages = [settings, record].map(|message| ImportVoiceCallsRequest {
        message: Some(message),
    });
    let mut answers = match client.import_voice_calls(stream::iter(messages)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return expect_passing(&status, "import"),
    };
    loop {
        match answers.message().await {
            Ok(None) => return,
            Ok(Some(answer)) => {
                let is_good = matches!(answer.result, Some(Answer::Success(_)));
                assert!(is_good, "the record is refused for good: {answer:?}");
            }
            Err(status) => return expect_passing(&status, "import"),
        }
    }
}

/// Sends the write until it is accepted, which must be soon.
async fn accepted(endpoint: &str, write: Write) -> Vec<VoiceCall> {
    let mut client = client(endpoint);
    let start = Instant::now();
    let mut tries = interval(Duration::from_millis(50));
    loop {
        tries.tick().await;
        if let Some(calls) = attempt(&mut client, write.clone()).await {
            return calls;
        }
        assert!(start.elapsed() < SOON, "no write is accepted");
    }
}

/// Creates with request ids must be accepted soon, one after the other; returns the last.
async fn expect_creates(endpoint: &str) -> VoiceCall {
    let mut client = client(endpoint);
    let start = Instant::now();
    let mut tries = interval(Duration::from_millis(20));
    let mut in_a_row = 0;
    loop {
        tries.tick().await;
        let created = attempt(&mut client, create_of(inbound())).await;
        in_a_row = if created.is_some() { in_a_row + 1 } else { 0 };
        if in_a_row == ENOUGH {
            let created = created.expect("it was accepted");
            return created.into_iter().next().expect("one");
        }
        assert!(start.elapsed() < SOON, "creates are not accepted again");
    }
}

/// The true time, in microseconds since 1970.
fn true_time() -> i64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let time = time.expect("it is after 1970").as_micros();
    i64::try_from(time).expect("it fits")
}

/// How long a clock is wrong, where there is nothing else to wait for.
async fn pause(time: Duration) {
    let mut ticks = interval(time);
    ticks.tick().await;
    ticks.tick().await;
}

/// Runs blocking code without holding up the other tasks of the test.
fn blocking<T>(run: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(run)
}
