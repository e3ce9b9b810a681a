//! Many writers, many watchers, two replicas, kills, purges, reconnects, snapshots
//! and slow readers: afterwards what every watcher saw is checked against the change
//! log.
//!
//! - `writers`: random writes to random replicas
//! - `watchers`: what each watcher requests, and how it reads, drops and resumes
//! - `validators`: shows that the validators find what is wrong
//!
//! Runs for 20 seconds, or as long as `VOICECALL_HISTORY_SECONDS` says.

mod validators;
mod watchers;
mod writers;

use std::{
    collections::{HashMap, HashSet},
    env,
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{Rng, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use voicecall::{
    domain::{Change, Uuid},
    store::{Connector, Position, Store, Supervisor},
};

use self::{
    validators::validators_find_what_is_wrong,
    watchers::{habits, watch},
    writers::{seed, write},
};
use crate::support::{
    history::{FinalLog, validate},
    postgres::Cluster,
    server::{Process, settings},
};

const WRITERS: u64 = 6;
/// Calls that are written. One call in `CALLS_APART` is: a snapshot has many pages, and
/// changes behind and ahead of the page that is read.
const CALLS: u128 = 300;
const CALLS_APART: u128 = 8;

/// Where the replicas listen; a killed one comes back elsewhere.
type Endpoints = Arc<Mutex<Vec<String>>>;

fn any_endpoint(endpoints: &Endpoints, random: &mut StdRng) -> String {
    let endpoints = endpoints.lock().expect("no panic");
    endpoints[random.random_range(0..endpoints.len())].clone()
}

/// For each endpoint, the uids of the calls whose purge it has reported.
type Purged = Arc<Mutex<HashMap<String, HashSet<String>>>>;

/// The uid of a call that is written.
fn uid(number: u128) -> String {
    Uuid::from_u128(number * CALLS_APART).to_string()
}

/// All changes, in order.
pub(crate) async fn final_log(database_url: &str) -> Vec<Change> {
    let connector = Connector::new(database_url).expect("valid");
    let (store, _following, tasks) = Store::new(
        connector,
        settings().store,
        &[tokio::runtime::Handle::current()],
        &Supervisor::default(),
    );
    tasks.open(false).await.expect("it is there");
    let mut changes: Vec<Change> = Vec::new();
    let mut position = Position::default();
    loop {
        let deadline = Instant::now() + Duration::from_secs(30);
        let page = store
            .log()
            .after(position, 1000, None, deadline)
            .await
            .expect("whole");
        let Some(last) = page.entries.last() else {
            return changes;
        };
        position = Position {
            revision: last.change.revision,
            stamp: last.stamp,
        };
        changes.extend(page.entries.into_iter().map(|entry| entry.change));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_see_every_change_once_in_order_through_kills_and_reconnects() {
    let seconds = env::var("VOICECALL_HISTORY_SECONDS").ok();
    let seconds = seconds.map_or(20, |text| text.parse().expect("a number of seconds"));
    let duration = Duration::from_secs(seconds);
    let database_url = Cluster::shared().await.database().await;
    let start = || {
        // Little memory, so that a slow watcher must read the log.
        Process::start(&[
            ("DATABASE_URL", &database_url),
            ("VOICECALL_FEED_MEMORY", "500000"),
        ])
    };
    let mut replicas = [start(), start()];
    let addresses = replicas
        .iter()
        .map(|replica| replica.endpoint.clone())
        .collect();
    let endpoints: Endpoints = Arc::new(Mutex::new(addresses));
    let (purged, goal) = (Purged::default(), Arc::new(Mutex::new(None)));
    seed(&mut replicas[0].client()).await;
    let end = Instant::now() + duration;

    let mut watchers = JoinSet::new();
    for (place, habit) in habits().into_iter().enumerate() {
        let (endpoints, purged, goal) = (
            Arc::clone(&endpoints),
            Arc::clone(&purged),
            Arc::clone(&goal),
        );
        watchers.spawn(async move {
            let filter = habit.filter.clone();
            let sessions = watch(habit, endpoints, purged, goal, place as u64).await;
            (filter, sessions)
        });
    }
    let mut writers = JoinSet::new();
    for seed in 0..WRITERS {
        writers.spawn(write(seed, Arc::clone(&endpoints), end));
    }
    for killed in [1, 0] {
        sleep(duration / 3).await;
        replicas[killed] = start();
        endpoints.lock().expect("no panic")[killed] = replicas[killed].endpoint.clone();
    }
    while writers.join_next().await.is_some() {}
    let log = FinalLog::new(final_log(&database_url).await);
    *goal.lock().expect("no panic") = Some(log.head());
    let mut all = Vec::new();
    let ended = timeout(Duration::from_secs(60), async {
        while let Some(watcher) = watchers.join_next().await {
            all.push(watcher.expect("no panic"));
        }
    });
    ended.await.expect("every watcher comes to the end");
    let (mut seen, mut sessions) = (0, 0);
    for (filter, watched) in &all {
        seen += validate(&log, filter, watched).unwrap_or_else(|why| panic!("{why}; {filter:?}"));
        sessions += watched.len();
    }
    println!(
        "{} changes, {} watchers, {sessions} streams, {seen} events",
        log.head(),
        all.len()
    );
    assert!(
        log.head() > 500 && seen > 5000,
        "too little happened to prove anything"
    );
    validators_find_what_is_wrong(&log, &all);
}
