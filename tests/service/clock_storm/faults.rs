//! Steps of the clocks, locks, dumps, publications and replicas that start and are killed, at
//! random. After each the service is asked whether it works.

use std::{
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc::RecvTimeoutError},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_postgres::{Client as Database, NoTls};
use tokio_util::sync::CancellationToken;

use super::{Environment, blocking, borrowed};
use crate::support::{
    clock::Clock,
    faults::enabled_of,
    load::busy_time,
    postgres::{binaries, connect},
    server::Process,
    storm::recover,
    tally::Tally,
};

/// How soon the service must work after a fault, whatever else is locked meanwhile.
const RECOVERY: Duration = Duration::from_secs(30);
/// Longer runs have some faults of many seconds too.
const SHORT: Duration = Duration::from_secs(60);
/// How long a replica has to begin to serve before it is killed.
const START_WAIT: Duration = Duration::from_secs(10);
/// How long a fault waits for its lock.
const LOCK_WAIT: Duration = Duration::from_secs(2);

const CLOCK_FAULTS: [&str; 2] = ["database-clock", "replica-clocks"];
const LOCK_FAULTS: [&str; 1] = ["lock"];
const READER_FAULTS: [&str; 3] = ["transaction", "dump", "publication"];
const START_FAULTS: [&str; 1] = ["start"];

const DATABASES_CLOCK: &str = "steps of the database's clock";

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
    "idempotency_records",
    "voice_call_batches",
    "feed",
];
const PARTITIONS: &str = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' \
    AND relname ~ '^(voice_call_changes|idempotency_records_slot)_[0-9]' ORDER BY random() LIMIT 1";
/// What VACUUM, a dump and a migration take.
const MODES: [(&str, &str); 3] = [
    ("SHARE UPDATE EXCLUSIVE", "locks of maintenance"),
    ("ACCESS SHARE", "locks of readers"),
    ("ACCESS EXCLUSIVE", "exclusive locks"),
];
/// What a dump does at first: it has one snapshot, and has read every table.
const READ_ALL: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    SELECT count(*) FROM voice_call_changes; SELECT count(*) FROM idempotency_records; \
    SELECT count(*) FROM voice_calls; SELECT count(*) FROM purged_calls";

const PUBLISH: &str = "DROP PUBLICATION IF EXISTS everything; \
    CREATE PUBLICATION everything FOR ALL TABLES";

/// Replicas that start: their environment, and their clock.
pub(super) struct Starting {
    pub(super) environment: Environment,
    pub(super) clock: Clock,
}

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
        starting: Starting,
        clocks: &[Arc<Clock>; 3],
        seed: u64,
        tally: &Arc<Tally>,
    ) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let mut number = 0;
        let wrong = Arc::<Mutex<()>>::default();
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
                wrong: Arc::clone(&wrong),
            }
        };
        let whose = [DATABASES_CLOCK, "steps of a replica's clock"];
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
        if !enabled(&START_FAULTS).is_empty() {
            tasks.spawn(next().await.start_replicas(starting));
        }
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
    let all = [
        &CLOCK_FAULTS[..],
        &LOCK_FAULTS,
        &READER_FAULTS,
        &START_FAULTS,
    ];
    enabled_of(&all.concat(), faults)
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
    /// Held while the database's clock is wrong, or that of a replica that starts: if both
    /// are, nothing tells a start from one after a long time.
    wrong: Arc<Mutex<()>>,
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

    /// Opens the session again if it has ended: a process of the server may crash, because a
    /// signal may come while libfaketime reads the time for its handler.
    async fn reconnect(&mut self) {
        let mut tries = interval(Duration::from_millis(100));
        while self.database.is_closed() && !self.stop.is_cancelled() {
            tries.tick().await;
            if let Ok((database, connection)) = tokio_postgres::connect(&self.url, NoTls).await {
                tokio::spawn(connection);
                self.database = database;
            }
        }
    }

    /// Runs statements that succeed, unless the session ends.
    async fn run(&self, sql: &str) {
        if let Err(error) = self.database.batch_execute(sql).await {
            assert!(
                error.as_db_error().is_none() || self.database.is_closed(),
                "{sql}: {error:?}"
            );
        }
    }

    async fn expect_service(&self) {
        let [first, second] = &self.replicas;
        recover([first, second], RECOVERY, &self.tally).await;
    }

    /// How far a clock steps, either way.
    fn any_step(&mut self) -> (i64, &'static str) {
        let (seconds, size) = STEPS[self.random.random_range(0..STEPS.len())];
        match self.random.random_bool(0.5) {
            true => (seconds, size),
            false => (-seconds.min(MAX_BACK), size),
        }
    }

    /// Each step is taken back: a clock that stays wrong is believed in the end.
    async fn step_clock(mut self, clock: Arc<Clock>, whose: &'static str) {
        while !self.stop.is_cancelled() {
            self.rest().await;
            let (seconds, size) = self.any_step();
            self.tally.add(whose, 1);
            self.tally.add(size, 1);
            let time = self.duration(100);
            let is_databases = whose == DATABASES_CLOCK;
            let wrong = Arc::clone(&self.wrong);
            let held = match is_databases {
                true => Some(wrong.lock().await),
                false => None,
            };
            clock.set(seconds);
            if time >= Duration::from_secs(1) {
                tokio::join!(self.pause(time), self.expect_service());
            } else {
                self.pause(time).await;
            }
            clock.set(0);
            drop(held);
            self.expect_service().await;
        }
    }

    async fn lock_tables(mut self) {
        while !self.stop.is_cancelled() {
            self.rest().await;
            let table = match self.random.random_bool(0.5) {
                true => TABLES[self.random.random_range(0..TABLES.len())].to_owned(),
                false => {
                    let Ok(row) = self.database.query_one(PARTITIONS, &[]).await else {
                        self.reconnect().await;
                        continue;
                    };
                    row.get(0)
                }
            };
            let (mode, what) = MODES[self.random.random_range(0..MODES.len())];
            let lock = format!("BEGIN; LOCK TABLE {table} IN {mode} MODE");
            self.reconnect().await;
            let is_locked = self.locks(&lock).await;
            if is_locked {
                self.tally.add(what, 1);
                let time = self.duration(12);
                self.pause(time).await;
            }
            self.run("ROLLBACK").await;
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
                // It may not listen now.
                let _ = cancel.cancel_query(NoTls).await;
                locking.await.is_ok()
            }
        }
    }

    /// Dumps, transactions that are forgotten, and publications, one at a time.
    async fn read_all(mut self, faults: Vec<&'static str>) {
        while !faults.is_empty() && !self.stop.is_cancelled() {
            self.rest().await;
            self.reconnect().await;
            match faults[self.random.random_range(0..faults.len())] {
                "transaction" => {
                    self.run(READ_ALL).await;
                    self.tally.add("open transactions that have read all", 1);
                    let time = self.duration(60);
                    self.pause(time).await;
                    self.run("COMMIT").await;
                }
                "dump" => self.dump().await,
                _ => {
                    self.run(PUBLISH).await;
                    self.tally.add("publications of all tables", 1);
                    let time = self.duration(30);
                    self.pause(time).await;
                    self.run("DROP PUBLICATION IF EXISTS everything").await;
                }
            }
            self.expect_service().await;
        }
    }

    /// Replicas come and go (SIGKILL). One that starts looks after the partitions at once,
    /// whatever its clock or the database's say just then.
    async fn start_replicas(mut self, starting: Starting) {
        while !self.stop.is_cancelled() {
            self.rest().await;
            let wrong = Arc::clone(&self.wrong);
            let held = match self.random.random_bool(0.5) {
                true => Some(wrong.lock().await),
                false => None,
            };
            if held.is_some() {
                starting.clock.set(self.any_step().0);
            }
            let (replica, serving) = Process::launch(&borrowed(&starting.environment));
            self.tally.add("replicas started", 1);
            match blocking(|| serving.recv_timeout(START_WAIT)) {
                Ok(endpoint) => {
                    recover([&endpoint, &endpoint], RECOVERY, &self.tally).await;
                    self.tally.add("replicas started that served", 1);
                }
                // It waits for a clock that can be right, or for a lock.
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.tally.violation("a replica that ended", || {
                        format!("{:#?}", replica.log.lines())
                    });
                }
            }
            drop(held);
            let time = self.duration(20);
            self.pause(time).await;
            drop(replica);
            starting.clock.set(0);
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
