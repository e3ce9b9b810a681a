//! Steps of the clocks, locks, dumps and publications, at random. After each the service is
//! asked whether it works.

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_postgres::{Client as Database, NoTls};
use tokio_util::sync::CancellationToken;

use crate::support::{
    clock::Clock,
    faults::enabled_of,
    load::busy_time,
    postgres::{binaries, connect},
    storm::recover,
    tally::Tally,
};

/// How soon the service must work after a fault, whatever else is locked meanwhile.
const RECOVERY: Duration = Duration::from_secs(30);
/// Longer runs have some faults of many seconds too.
const SHORT: Duration = Duration::from_secs(60);
/// How long a fault waits for its lock.
const LOCK_WAIT: Duration = Duration::from_secs(2);

const CLOCK_FAULTS: [&str; 2] = ["database-clock", "replica-clocks"];
const LOCK_FAULTS: [&str; 1] = ["lock"];
const READER_FAULTS: [&str; 3] = ["transaction", "dump", "publication"];

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// How far a clock steps, in seconds.
const STEPS: [(i64, &str); 9] = [
    (1, "steps by a second"),
    (10, "steps by seconds"),
    (90, "steps by minutes"),
    (HOUR, "steps by an hour"),
    (40 * HOUR, "steps by hours"),
    (8 * DAY, "steps by days"),
    (YEAR, "steps by a year"),
    (10 * YEAR, "steps by years"),
    (70 * YEAR, "steps by decades"),
];
/// Further back there is no time that a system's clock shows.
const MAX_BACK: i64 = 10 * YEAR;

/// What is locked: tables, and any of their partitions.
const TABLES: [&str; 5] = [
    "voice_calls",
    "voice_call_changes",
    "request_records",
    "voice_call_batches",
    "feed",
];
const PARTITIONS: &str = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' \
    AND relname ~ '^(voice_call_changes|request_records_slot)_[0-9]' ORDER BY random() LIMIT 1";
/// What VACUUM, a dump and a migration take.
const MODES: [(&str, &str); 3] = [
    ("SHARE UPDATE EXCLUSIVE", "locks of maintenance"),
    ("ACCESS SHARE", "locks of readers"),
    ("ACCESS EXCLUSIVE", "exclusive locks"),
];
/// What a dump does at first: it has one snapshot, and has read every table.
const READ_ALL: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    SELECT count(*) FROM voice_call_changes; SELECT count(*) FROM request_records; \
    SELECT count(*) FROM voice_calls; SELECT count(*) FROM purged_calls";

/// The running faults.
pub(super) struct Faults {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Faults {
    /// Starts all faults, or those that VOICECALL_STORM_FAULTS lists.
    pub(super) async fn start(
        url: &str,
        replicas: [&str; 2],
        clocks: &[Arc<Clock>; 3],
        seed: u64,
        tally: &Arc<Tally>,
    ) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let mut number = 0;
        let mut next = async || {
            number += 1;
            Driver {
                random: StdRng::seed_from_u64(seed ^ (number << 32)),
                database: connect(url).await,
                url: url.to_owned(),
                replicas: replicas.map(str::to_owned),
                tally: Arc::clone(tally),
                stop: stop.clone(),
                is_long: busy_time() > SHORT,
            }
        };
        let whose = [
            "steps of the database's clock",
            "steps of a replica's clock",
        ];
        for (place, clock) in clocks.iter().enumerate() {
            let place = place.min(1);
            if !enabled(&[CLOCK_FAULTS[place]]).is_empty() {
                tasks.spawn(next().await.step_clock(Arc::clone(clock), whose[place]));
            }
        }
        if !enabled(&LOCK_FAULTS).is_empty() {
            tasks.spawn(next().await.lock_tables());
        }
        tasks.spawn(next().await.read_all(enabled(&READER_FAULTS)));
        Self { tasks, stop }
    }

    /// Stops and reverts all faults.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no driver of faults panics");
        }
    }
}

fn enabled(faults: &[&'static str]) -> Vec<&'static str> {
    let all = [&CLOCK_FAULTS[..], &LOCK_FAULTS, &READER_FAULTS].concat();
    enabled_of(&all, faults)
}

/// A task that injects faults.
struct Driver {
    random: StdRng,
    database: Database,
    url: String,
    replicas: [String; 2],
    tally: Arc<Tally>,
    stop: CancellationToken,
    is_long: bool,
}

impl Driver {
    /// Waits, but not beyond the stop.
    async fn pause(&self, time: Duration) {
        // Whichever comes first.
        let _ = timeout(time, self.stop.cancelled()).await;
    }

    /// How long a fault lasts: mostly some tenths of a second, sometimes seconds, and in a
    /// long run up to `most` seconds.
    fn duration(&mut self, most: u64) -> Duration {
        let millis = match self.random.random_range(0..12) {
            0 if self.is_long => 5_000..most * 1_000,
            0..4 => 1_000..4_000,
            _ => 50..800,
        };
        Duration::from_millis(self.random.random_range(millis))
    }

    async fn rest(&mut self) {
        let time = Duration::from_millis(self.random.random_range(300..3_000));
        self.pause(time).await;
    }

    async fn expect_service(&self) {
        let [first, second] = &self.replicas;
        recover([first, second], RECOVERY, &self.tally).await;
    }

    /// Each step is taken back: a clock that stays wrong is believed in the end.
    async fn step_clock(mut self, clock: Arc<Clock>, whose: &'static str) {
        while !self.stop.is_cancelled() {
            self.rest().await;
            let (seconds, size) = STEPS[self.random.random_range(0..STEPS.len())];
            let seconds = match self.random.random_bool(0.5) {
                true => seconds,
                false => -seconds.min(MAX_BACK),
            };
            self.tally.add(whose, 1);
            self.tally.add(size, 1);
            let time = self.duration(100);
            clock.set(seconds);
            if time >= Duration::from_secs(1) {
                tokio::join!(self.pause(time), self.expect_service());
            } else {
                self.pause(time).await;
            }
            clock.set(0);
            self.expect_service().await;
        }
    }

    async fn lock_tables(mut self) {
        while !self.stop.is_cancelled() {
            self.rest().await;
            let table = match self.random.random_bool(0.5) {
                true => TABLES[self.random.random_range(0..TABLES.len())].to_owned(),
                false => {
                    let row = self.database.query_one(PARTITIONS, &[]).await;
                    row.expect("there are some").get(0)
                }
            };
            let (mode, what) = MODES[self.random.random_range(0..MODES.len())];
            let lock = format!("BEGIN; LOCK TABLE {table} IN {mode} MODE");
            let is_locked = self.locks(&lock).await;
            if is_locked {
                self.tally.add(what, 1);
                let time = self.duration(12);
                self.pause(time).await;
            }
            self.database.batch_execute("ROLLBACK").await.expect("open");
            self.expect_service().await;
        }
    }

    /// Whether the lock was to be had in time. The limit is ours: the database's goes by its
    /// clock.
    async fn locks(&self, lock: &str) -> bool {
        let cancel = self.database.cancel_token();
        let mut locking = std::pin::pin!(self.database.batch_execute(lock));
        match timeout(LOCK_WAIT, &mut locking).await {
            // The partition may be gone.
            Ok(locked) => locked.is_ok(),
            Err(_) => {
                cancel.cancel_query(NoTls).await.expect("it listens");
                locking.await.is_ok()
            }
        }
    }

    /// Dumps, transactions that are forgotten, and publications, one at a time.
    async fn read_all(mut self, faults: Vec<&'static str>) {
        while !faults.is_empty() && !self.stop.is_cancelled() {
            self.rest().await;
            match faults[self.random.random_range(0..faults.len())] {
                "transaction" => {
                    let read = self.database.batch_execute(READ_ALL).await;
                    read.expect("it may read");
                    self.tally.add("open transactions that have read all", 1);
                    let time = self.duration(60);
                    self.pause(time).await;
                    self.database.batch_execute("COMMIT").await.expect("open");
                }
                "dump" => self.dump().await,
                _ => {
                    let publish = "CREATE PUBLICATION everything FOR ALL TABLES";
                    self.database.batch_execute(publish).await.expect("new");
                    self.tally.add("publications of all tables", 1);
                    let time = self.duration(30);
                    self.pause(time).await;
                    let end = "DROP PUBLICATION everything";
                    self.database.batch_execute(end).await.expect("there");
                }
            }
            self.expect_service().await;
        }
    }

    /// It may fail: a partition that it has listed may be gone when it locks it.
    async fn dump(&self) {
        let mut command = Command::new(binaries().join("pg_dump"));
        command.args(["--dbname", &self.url, "--file", "/dev/null"]);
        command.args(["--exclude-table", "recorded_changes"]);
        command.stderr(Stdio::null());
        let mut dump = Dump(command.spawn().expect("it comes with the server"));
        let mut looks = interval(Duration::from_millis(50));
        while !self.stop.is_cancelled() {
            looks.tick().await;
            if let Some(status) = dump.0.try_wait().expect("it is our child") {
                let what = match status.success() {
                    true => "dumps",
                    false => "dumps that found a partition gone",
                };
                return self.tally.add(what, 1);
            }
        }
    }
}

/// Killed when it is dropped.
struct Dump(Child);

impl Drop for Dump {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
