//! What narrowed callers see equals what they would see of a service that only ever held the
//! states that they may see (purges excepted, which all are told of).
//!
//! - `callers`: one for each narrowing, and the rule of what it covers
//! - `writes`: random writes, by all of them
//! - `filters`: random filters, and what they match
//! - `model`: what must be seen of a log
//! - `live`, `reads`: the watches during the writes, and every kind of read after them
//! - `meanwhile`: exports and snapshots that are read while calls change hands
//! - `timing`: whether the time of a refusal tells why
//!
//! A case is one comparison of one caller, one filter and one kind of read. There are
//! `VOICECALL_TEST_CASES` of them, and a new log for every 2,500. The seed is printed, and set by
//! `VOICECALL_TEST_SEED`; what depends on times and new uids differs all the same.

mod callers;
mod filters;
mod live;
mod meanwhile;
mod model;
mod reads;
mod timing;
mod writes;

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all, stream};
use rand::{
    Rng, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, IteratorRandom},
};
use voicecall::proto::{ListVoiceCallsRequest, VoiceCallFilter};

use self::{
    callers::{Caller, Narrowing, callers},
    filters::any_filter,
    live::LiveWatcher,
    model::{Log, View},
    reads::{Case, Read},
    writes::{Company, purge, write},
};
use crate::support::{Client, dir::Dir, postgres::Cluster, server::Process};

/// Longer than anything takes in a working service.
const PATIENCE: Duration = Duration::from_secs(20);
const CASES: usize = 1200;
/// Cases for each log.
const CASES_PER_LOG: usize = 2500;
/// Random writes, in parts; after each part some calls are purged.
const PARTS: u64 = 6;
const WRITES_PER_PART: usize = 60;
const PURGES_PER_PART: usize = 2;
/// Writers at once in every other part, and what each of them writes; in the others there is one.
const WRITERS: u64 = 16;
const WRITES_PER_WRITER: usize = 12;
const LIVE_WATCHERS: usize = 100;
const READERS: usize = 16;

/// A service, its callers, and its calls.
struct World {
    server: Process,
    /// The first sees everything.
    callers: Vec<Caller>,
    /// The uids of all calls that are or were there.
    uids: Mutex<Vec<String>>,
    database_url: String,
    dir: Dir,
    client: Client,
}

impl World {
    async fn start(name: &str) -> Self {
        let (callers, policy) = callers();
        let dir = Dir::new(name);
        dir.write("policy.toml", &policy);
        let database_url = Cluster::shared().await.database().await;
        let server = replica(&dir, &database_url);
        Self {
            client: server.client(),
            server,
            callers,
            uids: Mutex::default(),
            database_url,
            dir,
        }
    }

    fn client(&self) -> Client {
        self.client.clone()
    }

    /// The caller who sees everything.
    fn full(&self) -> &Caller {
        &self.callers[0]
    }

    /// Watches everything from the first change on.
    async fn watch_all(&self) -> LiveWatcher {
        let everything = VoiceCallFilter {
            show_deleted: true,
            ..Default::default()
        };
        LiveWatcher::start(self, 0, everything, true).await
    }

    /// The newest revision.
    async fn head(&self) -> i64 {
        let request = self.full().request(ListVoiceCallsRequest::default());
        let list = self.client().list_voice_calls(request).await;
        list.expect("it lists").into_inner().revision
    }

    fn narrowing_of(&self, actor: &str) -> Narrowing {
        let mut callers = self.callers.iter();
        let caller = callers.find(|caller| caller.actor == actor);
        caller.expect("every change has its actor").narrowing
    }
}

fn replica(dir: &Dir, database_url: &str) -> Process {
    Process::start(&[
        ("DATABASE_URL", database_url),
        ("VOICECALL_AUTH_POLICY", &dir.path("policy.toml")),
    ])
}

/// The number that an environment variable has.
fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

/// The seed of all random choices.
fn seed() -> u64 {
    let seed = number("VOICECALL_TEST_SEED").unwrap_or_else(rand::random);
    println!("VOICECALL_TEST_SEED={seed}");
    seed
}

/// Some callers who watch while a log is written, with random filters.
async fn watch_live(world: &World, random: &mut StdRng) -> Vec<LiveWatcher> {
    let mut watchers = Vec::new();
    for _ in 0..LIVE_WATCHERS {
        let caller = random.random_range(0..world.callers.len());
        // None has a uid yet that a filter could name.
        let filter = any_filter(random, &[]);
        watchers.push(LiveWatcher::start(world, caller, filter, random.random()).await);
    }
    watchers
}

/// Writes a log, and compares what was seen of it live.
async fn write_log(world: &World, random: &mut StdRng) -> Log {
    let mut all = world.watch_all().await;
    let mut watchers = watch_live(world, random).await;
    for part in 0..PARTS {
        let (writers, count, company) = match part % 2 {
            0 => (1, WRITES_PER_PART, Company::Alone),
            _ => (WRITERS, WRITES_PER_WRITER, Company::Others),
        };
        let seeds = (0..writers).map(|_| StdRng::seed_from_u64(random.random()));
        let seeds: Vec<_> = seeds.collect();
        join_all(
            seeds
                .into_iter()
                .map(|seed| write(world, seed, count, company)),
        )
        .await;
        // Live watchers see all of a call before it is purged, and are not compared with less.
        let head = world.head().await;
        for watcher in watchers.iter_mut().chain([&mut all]) {
            watcher.reach(head).await;
        }
        purge(world, random, PURGES_PER_PART).await;
    }
    let head = world.head().await;
    all.reach(head).await;
    let log = Log::new(all.finish().await);
    assert_eq!(log.head(), head);
    log.check_actors(|actor| world.narrowing_of(actor));
    for mut watcher in watchers {
        watcher.reach(head).await;
        watcher.check(&log).await;
    }
    log
}

/// Random cases on one log, those of live watches included; returns how many it saw something in.
async fn compare(random: &mut StdRng, cases: usize) -> usize {
    let world = World::start("narrowing").await;
    let log = write_log(&world, random).await;
    // It has nothing in memory, and reads the log.
    let second = replica(&world.dir, &world.database_url);
    let clients = [world.client(), second.client()];
    let states = log.states();
    let seen = AtomicUsize::new(0);
    let cases = cases.saturating_sub(LIVE_WATCHERS);
    let seeds: Vec<u64> = (0..cases).map(|_| random.random()).collect();
    let (world, log, seen_by) = (&world, &log, &seen);
    stream::iter(seeds)
        .map(|seed| {
            let mut random = StdRng::seed_from_u64(seed);
            let caller = world.callers.choose(&mut random).expect("there are some");
            let view = View {
                narrowing: caller.narrowing,
                filter: any_filter(&mut random, &states),
            };
            if !log.calls(&view).is_empty() {
                seen_by.fetch_add(1, Ordering::Relaxed);
            }
            let read = *Read::ALL.choose(&mut random).expect("there are some");
            let case = Case {
                world,
                log,
                client: clients
                    .iter()
                    .choose(&mut random)
                    .expect("there are two")
                    .clone(),
                caller,
                view,
                random,
            };
            case.check(read)
        })
        .buffer_unordered(READERS)
        .collect::<()>()
        .await;
    seen.into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn narrowed_callers_see_what_a_service_without_the_rest_would_show() {
    let mut random = StdRng::seed_from_u64(seed());
    let cases = number("VOICECALL_TEST_CASES").unwrap_or(CASES);
    let (begun, mut left, mut seen) = (Instant::now(), cases, 0);
    while left > 0 {
        let now = left.min(CASES_PER_LOG);
        seen += compare(&mut random, now).await;
        left -= now;
    }
    println!(
        "{cases} cases in {:?}, {seen} of them with calls",
        begun.elapsed()
    );
    // Comparisons of nothing with nothing would prove nothing.
    assert!(seen > cases / 20, "{seen} of {cases} show a call");
}
