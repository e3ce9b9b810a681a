//! The storm: many clients on two replicas under random faults of the database and of
//! the network before it. No acknowledged write is lost or applied twice, every
//! repeated request gets the same response, every watcher sees every change once, no
//! response is INTERNAL, and everything works again soon after the last fault.
//!
//! Environment variables:
//! - `VOICECALL_TEST_SECONDS`: how long it runs, 10 seconds by default;
//! - `VOICECALL_STORM_FAULTS`: a list of the faults to inject (see `support/faults.rs`),
//!   "none" for a quiet run, all by default;
//! - `VOICECALL_STORM_SEED`: the seed of all random choices, printed at the start.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use voicecall::{domain::Filter, proto};

use crate::{
    history::final_log,
    support::{
        Client,
        faults::Faults,
        finish_within,
        history::{FinalLog, Session, validate},
        inbound,
        ledger::check_ledger,
        load::{Answered, Load, Observed, busy_time, repeat, send_until_known},
        postgres::{Cluster, Durability, connect},
        proxy::Proxy,
        resuming_watchers::{Goal, watch, watch_specs},
        server::{Process, client},
        tally::Tally,
        writes::{create_of, within},
    },
};

/// The connection slots of the database: enough for two replicas, and soon taken.
const SLOTS: u32 = 100;
/// How soon everything must work again after the last fault.
const RECOVERY: Duration = Duration::from_secs(15);
/// How long retries and watchers may take to end after that.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many requests are repeated at the end: so many, and so many for each second of
/// the storm.
const REPEATS: u64 = 1_500;
const REPEATS_PER_SECOND: u64 = 20;
const REPEATERS: usize = 16;

/// One database, and two replicas that each reach it through a proxy.
struct Deployment {
    cluster: Cluster,
    database: String,
    proxies: [Arc<Proxy>; 2],
    replicas: [Process; 2],
}

impl Deployment {
    async fn start() -> Self {
        let settings = |_: &std::path::Path| vec![format!("max_connections={SLOTS}")];
        let cluster = Cluster::start_with(Durability::Durable, 5432, settings);
        let url = cluster.database().await;
        let database = url.rsplit_once("dbname=").expect("it is named").1;
        let proxies = [1, 2].map(|_| Arc::new(Proxy::start(&cluster)));
        let port = proxies[1].tcp_port();
        let urls = [
            proxies[0].url(database),
            format!("host=127.0.0.1 port={port} user=voicecall dbname={database}"),
        ];
        Self {
            database: database.to_owned(),
            replicas: urls.map(|url| Process::start(&[("DATABASE_URL", &url)])),
            cluster,
            proxies,
        }
    }

    fn endpoints(&self) -> [&str; 2] {
        [&self.replicas[0].endpoint, &self.replicas[1].endpoint]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_the_database_nothing_acknowledged_is_lost_or_done_twice() {
    let seed = std::env::var("VOICECALL_STORM_SEED").ok();
    let seed = seed.map_or_else(rand::random, |text| text.parse().expect("a number"));
    println!("the storm of VOICECALL_STORM_SEED={seed}");
    let tally = Arc::new(Tally::default());
    let mut deployment = Deployment::start().await;
    let (goal, watchers) = start_watchers(&deployment, &tally);
    let load = Load::start(deployment.endpoints(), seed, &tally);
    let faults = Faults::start(
        &deployment.cluster,
        &deployment.database,
        &deployment.proxies,
        seed,
        &tally,
    )
    .await;
    sleep(busy_time()).await;
    faults.stop().await;
    recover(&deployment, &tally).await;
    let observed = load.finish(PATIENCE).await;
    for replica in &mut deployment.replicas {
        let ended = replica.child.try_wait().expect("it is our child");
        if let Some(status) = ended {
            tally.violation("a replica that ended", || status.to_string());
        }
    }
    observed.check_revisions(&tally);
    let url = deployment.cluster.url(&deployment.database);
    let states = observed.states();
    tally.add("states checked against the ledger", states.len() as u64);
    let head = checked(&tally, "a wrong ledger", ledger_head(url.clone(), states)).await;
    repeat_requests(&deployment, observed, &tally).await;
    let after = checked(
        &tally,
        "a wrong ledger",
        ledger_head(url.clone(), Vec::new()),
    )
    .await;
    if head.is_some() && head != after {
        tally.violation("repeated requests that write", || {
            format!("{head:?}, {after:?}")
        });
    }
    let log = checked(&tally, "a wrong log", async move {
        FinalLog::new(final_log(&url).await)
    })
    .await;
    check_watchers(log.as_ref(), &goal, watchers, &tally).await;
    tally.assert_no_violation();
    println!("{tally}");
    let writes = tally.count("writes acknowledged");
    assert!(
        writes > 200,
        "too little happened to prove anything: {writes} writes"
    );
}

type Watchers = JoinSet<(Filter, Vec<Session>)>;

/// Starts all watchers on each replica.
fn start_watchers(deployment: &Deployment, tally: &Arc<Tally>) -> (watch::Sender<Goal>, Watchers) {
    let goal = watch::Sender::new(Goal::None);
    let mut watchers = JoinSet::new();
    for home in 0..2 {
        for spec in watch_specs() {
            let mut endpoints = deployment.endpoints().map(str::to_owned);
            endpoints.rotate_left(home);
            let (goal, tally) = (goal.subscribe(), Arc::clone(tally));
            watchers.spawn(async move {
                let filter = spec.filter.clone();
                (filter, watch(spec, endpoints, goal, tally).await)
            });
        }
    }
    (goal, watchers)
}

/// Waits until everything works again on both replicas.
async fn recover(deployment: &Deployment, tally: &Tally) {
    let start = Instant::now();
    let [first, second] = deployment.endpoints().map(client);
    tokio::join!(recover_on(first, tally), recover_on(second, tally));
    let took = u64::try_from(start.elapsed().as_millis()).expect("small");
    tally.add("ms until everything worked again", took);
}

async fn recover_on(mut client: Client, tally: &Tally) {
    let (write, give_up) = (create_of(inbound()), CancellationToken::new());
    let written = send_until_known(&write, &mut client, true, tally, &give_up);
    if timeout(RECOVERY, written).await.is_err() {
        tally.violation("writes that stay dead", || format!("for {RECOVERY:?}"));
    }
    let mut pause = interval(Duration::from_millis(20));
    let read = async {
        loop {
            let list = proto::ListVoiceCallsRequest::default();
            let list = client.list_voice_calls(within(list, Some(RECOVERY))).await;
            let stats = proto::GetVoiceCallStatsRequest::default();
            let stats = client
                .get_voice_call_stats(within(stats, Some(RECOVERY)))
                .await;
            if list.is_ok() && stats.is_ok() {
                return;
            }
            pause.tick().await;
        }
    };
    if timeout(RECOVERY, read).await.is_err() {
        tally.violation("reads that stay dead", || format!("for {RECOVERY:?}"));
    }
}

async fn ledger_head(url: String, states: Vec<proto::VoiceCall>) -> i64 {
    check_ledger(&connect(&url).await, &states).await
}

/// Runs a check that panics when it fails, and records that as a violation.
async fn checked<T: Send + 'static>(
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
async fn repeat_requests(deployment: &Deployment, observed: Observed, tally: &Arc<Tally>) {
    let wanted = REPEATS + REPEATS_PER_SECOND * busy_time().as_secs();
    let wanted = usize::try_from(wanted).expect("small");
    let step = observed.named.len().div_ceil(wanted).max(1);
    let sample: Vec<Answered> = observed.named.into_iter().step_by(step).collect();
    let sample = Arc::new(sample);
    let give_up = CancellationToken::new();
    let mut repeaters = JoinSet::new();
    for number in 0..REPEATERS {
        let mut client = client(deployment.endpoints()[number % 2]);
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

/// Waits until the watchers have caught up, and validates what they saw.
async fn check_watchers(
    log: Option<&FinalLog>,
    goal: &watch::Sender<Goal>,
    mut watchers: Watchers,
    tally: &Tally,
) {
    goal.send_replace(log.map_or(Goal::GiveUp, |log| Goal::Revision(log.head())));
    let mut all = Vec::new();
    let collect = async {
        while let Some(watched) = watchers.join_next().await {
            all.push(watched.expect("no watcher panics"));
        }
    };
    let give_up = || {
        goal.send_replace(Goal::GiveUp);
    };
    finish_within(PATIENCE, collect, give_up).await;
    for (filter, sessions) in &all {
        tally.add("streams of watchers", sessions.len() as u64);
        let Some(log) = log else { continue };
        match validate(log, filter, sessions) {
            Ok(events) => tally.add("events validated", events as u64),
            Err(why) => tally.violation("a wrong history", || format!("{why}; {filter:?}")),
        }
    }
}
