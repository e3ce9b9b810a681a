//! The storm: many clients on two replicas while everything between them and the
//! database, and in the database, goes wrong at random. Afterwards nothing that was
//! acknowledged is lost or done twice, every repeated request is answered as it was,
//! and every watcher saw the whole story.
//!
//! Runs for 10 seconds, or as long as `VOICECALL_TEST_SECONDS` says, with the faults
//! that `VOICECALL_STORM_FAULTS` lists (all; "none" for a quiet run) and chosen by
//! the seed `VOICECALL_STORM_SEED` (any).

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use voicecall::{api::proto, domain::Filter};

use crate::{
    history::final_log,
    support::{
        Client,
        faults::Faults,
        finish_within,
        history::{FinalLog, Session, validate},
        inbound,
        ledger::check_ledger,
        load::{Answered, Load, Told, busy_time, repeat, send_until_known},
        postgres::{Cluster, Durability, connect},
        proxy::Proxy,
        resuming::{Goal, habits, watch},
        server::{Process, client},
        tally::Tally,
        writes::{create_of, within},
    },
};

/// Slots of the database: enough for two replicas, and soon taken.
const SLOTS: u32 = 100;
/// How soon all must work again once the faults have stopped.
const RECOVERY: Duration = Duration::from_secs(15);
/// How long a request may remain unknown, and a watcher on its way, after that.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many requests are repeated at the end, and for each second of the storm,
/// and by how many clients.
const REPEATS: u64 = 1_500;
const REPEATS_PER_SECOND: u64 = 20;
const REPEATERS: usize = 16;
/// No transaction of the service's outlives this, whatever holds it up.
const COMMIT_SECONDS: i64 = 30;

/// Two replicas with a proxy each before one database.
struct Stage {
    cluster: Cluster,
    database: String,
    proxies: [Arc<Proxy>; 2],
    replicas: [Process; 2],
}

impl Stage {
    async fn set() -> Self {
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
    let mut stage = Stage::set().await;
    let (goal, watchers) = start_watchers(&stage, &tally);
    let load = Load::start(stage.endpoints(), seed, &tally);
    let faults = Faults::start(
        &stage.cluster,
        &stage.database,
        &stage.proxies,
        seed,
        &tally,
    )
    .await;
    sleep(busy_time()).await;
    faults.stop().await;
    recover(&stage, &tally).await;
    let told = load.finish(PATIENCE).await;
    for replica in &mut stage.replicas {
        let ended = replica.child.try_wait().expect("it is our child");
        if let Some(status) = ended {
            tally.violation("a replica that ended", || status.to_string());
        }
    }
    told.check_revisions(&tally);
    let url = stage.cluster.url(&stage.database);
    let states = told.states();
    tally.add("states checked against the ledger", states.len() as u64);
    let head = checked(&tally, "a wrong ledger", ledger_head(url.clone(), states)).await;
    repeat_requests(&stage, told, &tally).await;
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
        FinalLog::new(final_log(&url).await).with_commits_of(COMMIT_SECONDS)
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

/// Starts every kind of watcher on each replica.
fn start_watchers(stage: &Stage, tally: &Arc<Tally>) -> (watch::Sender<Goal>, Watchers) {
    let goal = watch::Sender::new(Goal::None);
    let mut watchers = JoinSet::new();
    for home in 0..2 {
        for habit in habits() {
            let mut endpoints = stage.endpoints().map(str::to_owned);
            endpoints.rotate_left(home);
            let (goal, tally) = (goal.subscribe(), Arc::clone(tally));
            watchers.spawn(async move {
                let filter = habit.filter.clone();
                (filter, watch(habit, endpoints, goal, tally).await)
            });
        }
    }
    (goal, watchers)
}

/// Waits until everything works on both replicas.
async fn recover(stage: &Stage, tally: &Tally) {
    let start = Instant::now();
    let [first, second] = stage.endpoints().map(client);
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

/// Runs a check that panics when it fails.
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

/// Sends requests again, each on either replica: a sample of all of them.
async fn repeat_requests(stage: &Stage, told: Told, tally: &Arc<Tally>) {
    let wanted = REPEATS + REPEATS_PER_SECOND * busy_time().as_secs();
    let wanted = usize::try_from(wanted).expect("small");
    let step = told.named.len().div_ceil(wanted).max(1);
    let sample: Vec<Answered> = told.named.into_iter().step_by(step).collect();
    let sample = Arc::new(sample);
    let give_up = CancellationToken::new();
    let mut repeaters = JoinSet::new();
    for number in 0..REPEATERS {
        let mut client = client(stage.endpoints()[number % 2]);
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

/// Lets the watchers come to the end, and holds what they saw against the log.
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
