//! The storm of clocks: two replicas and their database, each with a clock of its own that
//! steps by seconds to decades, forwards and back; a log that is kept for seconds, so that
//! partitions are made and dropped all the time; locks, dumps, forgotten transactions and
//! publications of all tables; purges, and imports with records that the database refuses.
//!
//! All the while no answer is untrue: no acknowledged write is lost, a repeated request is
//! applied once and gets the same response, no write is INTERNAL, writes go on soon after
//! each fault, watchers see every change once and in order, `read_time` is a promise that
//! is kept, what is read is the fold of the log at its revision or an error with a reason,
//! and a purge erases everywhere.
//!
//! Environment variables:
//! - `VOICECALL_TEST_SECONDS`: how long it runs, 10 seconds by default;
//! - `VOICECALL_STORM_FAULTS`: a list of the faults to inject (see `faults`), "none" for a
//!   quiet run, all by default;
//! - `VOICECALL_STORM_SEED`: the seed of all random choices, printed at the start.

mod faults;
mod imports;
mod purges;
mod readings;
mod recorded;

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::sleep};
use tokio_postgres::Client as Database;
use tokio_util::sync::CancellationToken;
use voicecall::proto::VoiceCall;

use self::{
    faults::{Faults, Starting},
    purges::Purger,
    readings::{Reader, Reading},
};
use crate::{
    history::final_log,
    support::{
        clock::Clock,
        create, finish_within,
        history::FinalLog,
        inbound,
        load::{Load, busy_time},
        postgres::{Cluster, connect},
        server::{Process, client},
        storm::{PATIENCE, Watchers, check_watched, checked, ledger_head, repeat_requests, seed},
        tally::Tally,
    },
};

/// Clients of the general load; more would only wait.
const CLIENTS: u64 = 16;
/// Of each kind of the others.
const OTHERS: u64 = 2;
/// How long the log is kept, in seconds: short enough that a short run drops some of it.
const KEPT: &str = "2";
/// The same for runs of minutes, in which a fault may last longer.
const KEPT_LONG: &str = "60";
const LONG: Duration = Duration::from_secs(300);
/// Changes in a partition: a few seconds' worth.
const PARTITION_LEN: &str = "1000";
/// Little memory, so that who is behind reads the log.
const FEED_MEMORY: &str = "1000000";

/// The environment variables of a replica.
type Environment = Vec<(&'static str, String)>;

fn borrowed(environment: &Environment) -> Vec<(&str, &str)> {
    let pairs = environment.iter();
    pairs.map(|(name, value)| (*name, value.as_str())).collect()
}

/// How far the log's time may be from the true one, in microseconds. A replica that starts while
/// the database's clock is wrong by less than 15 minutes believes it: a step by minutes counts.
const NEAR: i64 = 120_000_000;

/// Two replicas over one database, each of the three with a clock of its own.
struct Deployment {
    replicas: [Process; 2],
    starting: Option<Starting>,
    url: String,
    cluster: Cluster,
    /// Last, so that they outlive the processes.
    clocks: [Arc<Clock>; 3],
}

impl Deployment {
    /// `None`: clocks cannot be set here.
    async fn start() -> Option<Self> {
        let clocks = [Clock::new()?, Clock::new()?, Clock::new()?].map(Arc::new);
        // Publications refuse what they would also refuse in earnest.
        let settings = ["wal_level=logical"];
        let cluster = blocking(|| Cluster::start_with_clock(&clocks[0], &settings));
        let url = cluster.database().await;
        recorded::record(&connect(&url).await).await;
        let kept = if busy_time() < LONG { KEPT } else { KEPT_LONG };
        let environment = |clock: &Clock| {
            let mut environment = clock.for_service();
            environment.extend([
                ("DATABASE_URL", url.clone()),
                ("VOICECALL_LOG_RETENTION", kept.to_owned()),
                ("VOICECALL_LOG_PARTITION", PARTITION_LEN.to_owned()),
                ("VOICECALL_FEED_MEMORY", FEED_MEMORY.to_owned()),
            ]);
            environment
        };
        let start = |clock| blocking(|| Process::start(&borrowed(&environment(clock))));
        let clock = Clock::new()?;
        Some(Self {
            replicas: [start(&clocks[1]), start(&clocks[2])],
            starting: Some(Starting {
                environment: environment(&clock),
                clock,
            }),
            url,
            cluster,
            clocks,
        })
    }

    fn endpoints(&self) -> [&str; 2] {
        [&self.replicas[0].endpoint, &self.replicas[1].endpoint]
    }
}

/// All that is done beside the general load and the watchers.
struct Others {
    stop: CancellationToken,
    readers: JoinSet<Vec<Reading>>,
    importers: JoinSet<Vec<VoiceCall>>,
    writers: JoinSet<()>,
}

impl Others {
    fn start(replicas: [&str; 2], seed: u64, tally: &Arc<Tally>) -> Self {
        let replicas = replicas.map(str::to_owned);
        let mut others = Self {
            stop: CancellationToken::new(),
            readers: JoinSet::new(),
            importers: JoinSet::new(),
            writers: JoinSet::new(),
        };
        let stop = || others.stop.clone();
        let shared = || (replicas.clone(), Arc::clone(tally));
        for number in 0..OTHERS {
            let seed = seed.wrapping_add(1_000 * (number + 1));
            let reader = |seed| Reader::new(seed, &replicas, tally);
            others.readers.spawn(reader(seed).read(stop()));
            others.readers.spawn(reader(seed + 1).export(stop()));
            let purger = Purger::new(seed + 2, &replicas, tally);
            others.writers.spawn(purger.run(stop()));
            let (endpoints, counts) = shared();
            let importer = imports::run(seed + 3, endpoints, counts, stop());
            others.importers.spawn(importer);
        }
        let (endpoints, counts) = shared();
        let changer = readings::change(seed, endpoints, counts, stop());
        others.writers.spawn(changer);
        others
    }

    /// Stops them; returns what was read, and the states that were imported.
    async fn finish(mut self, tally: &Tally) -> (Vec<Reading>, Vec<VoiceCall>) {
        self.stop.cancel();
        let (mut readings, mut states) = (Vec::new(), Vec::new());
        let all = async {
            while let Some(read) = self.readers.join_next().await {
                readings.extend(read.expect("no reader panics"));
            }
            while let Some(imported) = self.importers.join_next().await {
                states.extend(imported.expect("no importer panics"));
            }
            while let Some(ended) = self.writers.join_next().await {
                ended.expect("no writer panics");
            }
        };
        finish_within(PATIENCE, all, || {
            tally.violation("work that does not end", || format!("in {PATIENCE:?}"));
        })
        .await;
        (readings, states)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_clocks_say_and_the_log_forgets_no_answer_is_untrue() {
    let Some(mut deployment) = Deployment::start().await else {
        return;
    };
    let seed = seed();
    let tally = Arc::new(Tally::default());
    readings::create_large_calls(deployment.endpoints()[0]).await;
    let watchers = Watchers::start(deployment.endpoints(), &tally);
    let load = Load::start(deployment.endpoints(), CLIENTS, seed, &tally);
    let others = Others::start(deployment.endpoints(), seed, &tally);
    let starting = deployment.starting.take().expect("not taken yet");
    let faults = Faults::start(
        &deployment.url,
        deployment.endpoints(),
        starting,
        &deployment.clocks,
        seed,
        &tally,
    )
    .await;
    sleep(busy_time()).await;
    faults.stop().await;
    let observed = load.finish(PATIENCE).await;
    let (readings, imported) = others.finish(&tally).await;
    let database = connect(&deployment.url).await;
    observed.check_revisions(&tally);
    let mut states = observed.states();
    states.extend(imported);

    // What is written now has the time of now.
    create(&mut client(deployment.endpoints()[0]), inbound()).await;
    let ahead = recorded::micros_ahead(&database).await;
    if ahead.abs() > NEAR {
        tally.violation("a log whose time is wrong", || format!("{ahead} us ahead"));
    }
    let head = recorded::head(&database).await;
    repeat_requests(deployment.endpoints(), observed, &tally).await;
    let after = recorded::head(&database).await;
    if head != after {
        tally.violation("repeated requests that write", || {
            format!("{head}, {after}")
        });
    }
    let watched = watchers.finish(Some(head)).await;
    for replica in &mut deployment.replicas {
        let ended = replica.child.try_wait().expect("it is our child");
        if let Some(status) = ended {
            tally.violation("a replica that ended", || status.to_string());
        }
    }
    let dropped = u64::try_from(recorded::oldest(&database).await).expect("positive");
    tally.add("changes in the log", u64::try_from(head).expect("positive"));
    tally.add("changes that have left it", dropped);

    let crashes = deployment.cluster.log();
    let crashes = crashes.matches("was terminated by signal").count();
    tally.add("crashes of the database", crashes as u64);

    let Deployment { replicas, url, .. } = &mut deployment;
    for replica in replicas {
        replica.child.kill().expect("it is our child");
        replica.child.wait().expect("it is our child");
    }
    check_all(url, &database, states, &readings, &watched, &tally).await;
    tally.assert_no_violation();
    println!("{tally}");
    let purges = tally.count("purges answered");
    assert!(
        dropped > 0 && purges > 0,
        "too little happened to prove anything: {dropped} dropped, {purges} purges"
    );
}

/// Holds everything that was answered against the whole log.
async fn check_all(
    url: &str,
    database: &Database,
    states: Vec<VoiceCall>,
    readings: &[Reading],
    watched: &[crate::support::storm::Watched],
    tally: &Tally,
) {
    let counts = recorded::counts(database).await;
    recorded::restore(database).await;
    ledger_head(url, states, tally).await;
    let url = url.to_owned();
    let log = checked(tally, "a wrong log", async move {
        FinalLog::new(final_log(&url).await)
    });
    let Some(log) = log.await else { return };
    check_watched(&log, watched, tally);
    readings::check(&log, &counts, readings, tally);
}

/// Runs blocking code without holding up the other tasks of the test.
fn blocking<T>(run: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(run)
}
