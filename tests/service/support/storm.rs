//! What storms have in common: watchers on each replica, the recovery after a fault, and
//! the checks when all is over.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use voicecall::{domain::Filter, proto};

use super::{
    Client, finish_within,
    history::{FinalLog, Session, validate},
    inbound,
    ledger::check_ledger,
    load::{Answered, Observed, busy_time, repeat, send_until_known},
    postgres::connect,
    resuming_watchers::{Goal, watch, watch_specs},
    server::client,
    tally::Tally,
    writes::{create_of, within},
};

/// How long retries and watchers may take to end after the last fault.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How many requests are repeated at the end: so many, and so many for each second of
/// the storm.
const REPEATS: u64 = 1_500;
const REPEATS_PER_SECOND: u64 = 20;
const REPEATERS: usize = 16;

/// The seed of all random choices: VOICECALL_STORM_SEED, or any. It is printed.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("VOICECALL_STORM_SEED").ok();
    let seed = seed.map_or_else(rand::random, |text| text.parse().expect("a number"));
    println!("the storm of VOICECALL_STORM_SEED={seed}");
    seed
}

/// Watchers on two replicas.
pub(crate) struct Watchers {
    goal: watch::Sender<Goal>,
    running: JoinSet<Watched>,
}

/// A watcher's filter, and its streams in the order in which it opened them.
pub(crate) type Watched = (Filter, Vec<Session>);

impl Watchers {
    /// Starts all watchers on each replica.
    pub(crate) fn start(replicas: [&str; 2], tally: &Arc<Tally>) -> Self {
        let goal = watch::Sender::new(Goal::None);
        let mut running = JoinSet::new();
        for home in 0..2 {
            for spec in watch_specs() {
                let mut endpoints = replicas.map(str::to_owned);
                endpoints.rotate_left(home);
                let (goal, tally) = (goal.subscribe(), Arc::clone(tally));
                running.spawn(async move {
                    let filter = spec.filter.clone();
                    (filter, watch(spec, endpoints, goal, tally).await)
                });
            }
        }
        Self { goal, running }
    }

    /// Waits until the watchers have come to this revision; without one they give up.
    pub(crate) async fn finish(mut self, head: Option<i64>) -> Vec<Watched> {
        self.goal
            .send_replace(head.map_or(Goal::GiveUp, Goal::Revision));
        let mut all = Vec::new();
        let collect = async {
            while let Some(watched) = self.running.join_next().await {
                all.push(watched.expect("no watcher panics"));
            }
        };
        let give_up = || {
            self.goal.send_replace(Goal::GiveUp);
        };
        finish_within(PATIENCE, collect, give_up).await;
        all
    }
}

/// Holds what watchers saw against the log.
pub(crate) fn check_watched(log: &FinalLog, all: &[Watched], tally: &Tally) {
    for (filter, sessions) in all {
        tally.add("streams of watchers", sessions.len() as u64);
        match validate(log, filter, sessions) {
            Ok(events) => tally.add("events validated", events as u64),
            Err(why) => tally.violation("a wrong history", || format!("{why}; {filter:?}")),
        }
    }
}

/// Waits until everything works again on both replicas, for which they have so long.
pub(crate) async fn recover(replicas: [&str; 2], time: Duration, tally: &Tally) {
    let start = Instant::now();
    let [first, second] = replicas.map(client);
    tokio::join!(
        recover_on(first, time, tally),
        recover_on(second, time, tally)
    );
    let took = u64::try_from(start.elapsed().as_millis()).expect("small");
    tally.at_most("ms until everything worked again, at most", took);
}

async fn recover_on(mut client: Client, time: Duration, tally: &Tally) {
    let (write, give_up) = (create_of(inbound()), CancellationToken::new());
    let written = send_until_known(&write, &mut client, true, tally, &give_up);
    if timeout(time, written).await.is_err() {
        tally.violation("writes that stay dead", || format!("for {time:?}"));
    }
    let mut pause = interval(Duration::from_millis(20));
    let read = async {
        loop {
            let list = proto::ListVoiceCallsRequest::default();
            let list = client.list_voice_calls(within(list, Some(time))).await;
            let stats = proto::GetVoiceCallStatsRequest::default();
            let stats = client.get_voice_call_stats(within(stats, Some(time))).await;
            if list.is_ok() && stats.is_ok() {
                return;
            }
            pause.tick().await;
        }
    };
    if timeout(time, read).await.is_err() {
        tally.violation("reads that stay dead", || format!("for {time:?}"));
    }
}

/// Checks the ledger against what was answered; returns the head of the log. `None`: it is
/// wrong.
pub(crate) async fn ledger_head(
    url: &str,
    states: Vec<proto::VoiceCall>,
    tally: &Tally,
) -> Option<i64> {
    tally.add("states checked against the ledger", states.len() as u64);
    let url = url.to_owned();
    let check = async move { check_ledger(&connect(&url).await, &states).await };
    checked(tally, "a wrong ledger", check).await
}

/// Runs a check that panics when it fails, and records that as a violation.
pub(crate) async fn checked<T: Send + 'static>(
    tally: &Tally,
    violation: &'static str,
    check: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    match tokio::spawn(check).await {
        Ok(result) => Some(result),
        Err(error) => {
            let panic = error.into_panic();
            tally.violation(violation, || match panic.downcast::<String>() {
                Ok(message) => *message,
                Err(_) => "see above".into(),
            });
            None
        }
    }
}

/// Repeats a sample of all requests, half of them on each replica.
pub(crate) async fn repeat_requests(replicas: [&str; 2], observed: Observed, tally: &Arc<Tally>) {
    let wanted = REPEATS + REPEATS_PER_SECOND * busy_time().as_secs();
    let wanted = usize::try_from(wanted).expect("small");
    let step = observed.named.len().div_ceil(wanted).max(1);
    let sample: Vec<Answered> = observed.named.into_iter().step_by(step).collect();
    let sample = Arc::new(sample);
    let give_up = CancellationToken::new();
    let mut repeaters = JoinSet::new();
    for number in 0..REPEATERS {
        let mut client = client(replicas[number % 2]);
        let (sample, tally) = (Arc::clone(&sample), Arc::clone(tally));
        let give_up = give_up.clone();
        repeaters.spawn(async move {
            for answered in sample.iter().skip(number).step_by(REPEATERS) {
                repeat(answered, &mut client, &tally, &give_up).await;
            }
        });
    }
    let all = async { while repeaters.join_next().await.is_some() {} };
    let patience = PATIENCE * 2 + busy_time() / 5;
    finish_within(patience, all, || {
        tally.violation("requests that cannot be repeated", || {
            format!("in {patience:?}")
        });
        give_up.cancel();
    })
    .await;
}
