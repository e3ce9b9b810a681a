//! Random faults of the database and of the network before it: backends are
//! terminated and cancelled; connections are cut, frozen, blackholed or never
//! answered; the database is read-only, locked or out of connection slots for a while.
//!
//! Every fault is counted, and reverted before its task ends.

use std::{sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

use super::{
    load::busy_time,
    postgres::{Cluster, connect},
    proxy::{Direction, Proxy},
    tally::Tally,
};

/// More than the connection slots of any test cluster.
const MAX_CONNECTIONS: usize = 200;
/// Longer runs have some faults of many seconds too.
const SHORT: Duration = Duration::from_secs(60);
/// How long a fault may wait for its connection or lock.
const PATIENCE: Duration = Duration::from_secs(3);
/// The lock that orders commits.
const COMMIT_LOCK: &str = "SELECT pg_advisory_xact_lock(8642101, 1)";
const TABLE_LOCK: &str = "LOCK TABLE voice_calls IN ACCESS EXCLUSIVE MODE";

/// Makes some commits take a few milliseconds after their statement has returned its
/// row, so that backends are often ended there.
const SLOW_COMMITS: &str = "\
    CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        IF random() < 0.02 THEN PERFORM pg_sleep(random() * 0.01); END IF; \
        RETURN NULL; \
    END $$; \
    CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT OR UPDATE ON voice_calls \
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow_commit()";

const COMMIT_FAULTS: [&str; 1] = ["slow-commits"];
const BACKEND_FAULTS: [&str; 2] = ["terminate", "cancel"];
const NETWORK_FAULTS: [&str; 4] = ["cut", "freeze", "swallow", "silence"];
const DATABASE_FAULTS: [&str; 3] = ["read-only", "lock", "slots"];

/// The running faults.
pub(crate) struct Faults {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    /// Injects the last fault.
    last: Driver,
}

impl Faults {
    /// Starts all faults, or those that VOICECALL_STORM_FAULTS lists, separated by
    /// commas ("none" starts none).
    pub(crate) async fn start(
        cluster: &Cluster,
        database: &str,
        proxies: &[Arc<Proxy>; 2],
        seed: u64,
        tally: &Arc<Tally>,
    ) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        if !enabled(&COMMIT_FAULTS).is_empty() {
            let session = connect(&cluster.url(database)).await;
            let made = session.batch_execute(SLOW_COMMITS).await;
            made.expect("it is the first");
        }
        let mut drivers = Vec::new();
        for number in 0..5 {
            drivers.push(Driver {
                random: StdRng::seed_from_u64(seed ^ (number + 1)),
                admin: connect(&cluster.url("postgres")).await,
                admin_url: cluster.url("postgres"),
                database_url: cluster.url(database),
                database: database.to_owned(),
                proxies: proxies.clone(),
                tally: Arc::clone(tally),
                stop: stop.clone(),
                is_long: busy_time() > SHORT,
            });
        }
        let mut next = || drivers.pop().expect("there are five");
        tasks.spawn(next().end_backends(enabled(&BACKEND_FAULTS)));
        for proxy in proxies {
            tasks.spawn(next().break_network(Arc::clone(proxy), enabled(&NETWORK_FAULTS)));
        }
        tasks.spawn(next().disrupt_database(enabled(&DATABASE_FAULTS)));
        let last = Driver {
            stop: CancellationToken::new(),
            ..next()
        };
        Self { tasks, stop, last }
    }

    /// Stops and reverts all faults. What they leave behind are sessions that began
    /// while the database was read-only, and connections that are never answered.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no driver of faults panics");
        }
        if enabled(&DATABASE_FAULTS).contains(&"read-only") {
            self.last.forbid_writes(false).await;
        }
    }
}

/// Which of these faults are enabled.
fn enabled(faults: &[&'static str]) -> Vec<&'static str> {
    let all = [
        &COMMIT_FAULTS[..],
        &BACKEND_FAULTS,
        &NETWORK_FAULTS,
        &DATABASE_FAULTS,
    ];
    enabled_of(&all.concat(), faults)
}

/// Which of these faults VOICECALL_STORM_FAULTS enables, which lists some of `all`.
pub(crate) fn enabled_of(all: &[&'static str], faults: &[&'static str]) -> Vec<&'static str> {
    let listed = std::env::var("VOICECALL_STORM_FAULTS").ok();
    for one in listed.iter().flat_map(|listed| listed.split(',')) {
        let is_known = one == "none" || all.contains(&one);
        assert!(is_known, "unknown fault {one}: {all:?}");
    }
    let is_enabled = |fault: &&&str| match &listed {
        Some(listed) => listed.split(',').any(|one| one == **fault),
        None => true,
    };
    faults.iter().filter(is_enabled).copied().collect()
}

/// A task that injects faults.
struct Driver {
    random: StdRng,
    /// A session in another database, which the faults do not end.
    admin: Client,
    admin_url: String,
    /// Without a proxy.
    database_url: String,
    database: String,
    proxies: [Arc<Proxy>; 2],
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

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(range))
    }

    /// How long a fault lasts; in a long run, some last much longer.
    fn duration(&mut self, range: std::ops::Range<u64>) -> Duration {
        match self.random.random_range(0..12) {
            0 if self.is_long => self.millis(5_000..20_000),
            _ => self.millis(range),
        }
    }

    fn one_of(&mut self, faults: &[&'static str]) -> &'static str {
        faults[self.random.random_range(0..faults.len())]
    }

    /// Terminates and cancels backends, in phases of a constant rate.
    async fn end_backends(mut self, faults: Vec<&'static str>) {
        while !faults.is_empty() && !self.stop.is_cancelled() {
            let pace = [10, 30, 100, 300][self.random.random_range(0..4)];
            let end = Instant::now() + self.millis(500..2_000);
            while Instant::now() < end && !self.stop.is_cancelled() {
                let fault = self.one_of(&faults);
                self.end_backend(fault).await;
                self.pause(Duration::from_millis(pace)).await;
            }
            let rest = self.millis(0..1_000);
            self.pause(rest).await;
        }
    }

    async fn end_backend(&mut self, fault: &'static str) {
        // Mostly a writer, and one that is not waiting for a lock, if there is one.
        let first = match self.random.random_range(0..4) {
            0..3 => "application_name <> 'voicecall writer'",
            _ => "pid IS NULL",
        };
        let (function, what) = match fault {
            "terminate" => ("pg_terminate_backend", "backends terminated"),
            _ => ("pg_cancel_backend", "backends cancelled"),
        };
        let sql = format!(
            "WITH one AS MATERIALIZED (SELECT pid FROM pg_stat_activity \
                WHERE datname = $1 AND application_name LIKE 'voicecall%' \
                ORDER BY {first}, state = 'idle', \
                    wait_event_type IS NOT DISTINCT FROM 'Lock', random() LIMIT 1) \
             SELECT {function}(pid) FROM one"
        );
        let ended = self.admin.query(&sql, &[&self.database]).await;
        let ended = ended.expect("the administrator may").len();
        self.tally.add(what, ended as u64);
    }

    /// Disturbs the connections of one proxy.
    async fn break_network(mut self, proxy: Arc<Proxy>, faults: Vec<&'static str>) {
        while !faults.is_empty() && !self.stop.is_cancelled() {
            let rest = self.millis(300..4_000);
            self.pause(rest).await;
            match self.one_of(&faults) {
                "cut" => {
                    self.tally
                        .add("connections cut", proxy.connections() as u64);
                    proxy.cut();
                }
                "freeze" => self.freeze(&proxy).await,
                "swallow" => {
                    self.tally
                        .add("connections blackholed", proxy.connections() as u64);
                    proxy.swallow_present();
                    let time = self.duration(500..4_000);
                    self.pause(time).await;
                    // As keepalives would end them at last.
                    proxy.cut_swallowed();
                }
                _ => {
                    self.tally.add("times no new connection was answered", 1);
                    proxy.silent(true);
                    if self.random.random_bool(0.5) {
                        proxy.cut();
                    }
                    let time = self.duration(100..1_500);
                    self.pause(time).await;
                    proxy.silent(false);
                }
            }
        }
    }

    async fn freeze(&mut self, proxy: &Proxy) {
        let (direction, what) = [
            (Direction::ToServer, "freezes to PostgreSQL"),
            (Direction::ToClient, "freezes to the service"),
            (Direction::Both, "freezes both ways"),
        ][self.random.random_range(0..3)];
        self.tally.add(what, 1);
        let time = match self.random.random_range(0..6) {
            0 => self.duration(1_000..4_000),
            _ => self.millis(20..700),
        };
        proxy.freeze(direction);
        self.pause(time).await;
        proxy.thaw();
    }

    /// Makes the database read-only, locks it, or takes its slots, one at a time.
    async fn disrupt_database(mut self, faults: Vec<&'static str>) {
        while !faults.is_empty() && !self.stop.is_cancelled() {
            let rest = self.millis(300..4_000);
            self.pause(rest).await;
            match self.one_of(&faults) {
                "read-only" => {
                    let ends_sessions = self.random.random_bool(0.5);
                    self.forbid_writes(ends_sessions).await;
                }
                "lock" => self.lock().await,
                _ => self.take_slots().await,
            }
        }
    }

    /// Makes the database read-only for a while; sessions that began meanwhile stay
    /// so, unless they are ended.
    async fn forbid_writes(&mut self, ends_sessions: bool) {
        let alter = format!("ALTER DATABASE {}", self.database);
        let setting = "default_transaction_read_only";
        let forbid = format!("{alter} SET {setting} = on");
        let allow = format!("{alter} RESET {setting}");
        self.admin.batch_execute(&forbid).await.expect("it may");
        self.end_sessions().await;
        self.tally.add("read-only windows", 1);
        let time = self.millis(100..1_000);
        self.pause(time).await;
        self.admin.batch_execute(&allow).await.expect("it may");
        if ends_sessions {
            self.end_sessions().await;
        }
    }

    async fn end_sessions(&self) {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        let ended = self.admin.query(sql, &[&self.database]).await;
        ended.expect("the administrator may");
    }

    async fn lock(&mut self) {
        let (lock, what) = match self.random.random_bool(0.5) {
            true => (COMMIT_LOCK, "times the commit lock was held"),
            false => (TABLE_LOCK, "times the table was locked"),
        };
        let Some(session) = try_connect(&self.database_url).await else {
            return;
        };
        let sql = format!("BEGIN; SET LOCAL lock_timeout = '2s'; {lock}");
        if session.batch_execute(&sql).await.is_err() {
            return;
        }
        self.tally.add(what, 1);
        let time = match self.random.random_range(0..5) {
            0 => self.duration(1_000..4_000),
            _ => self.millis(50..800),
        };
        self.pause(time).await;
        // The session may have been terminated, and its lock released.
        let _ = session.batch_execute("COMMIT").await;
    }

    async fn take_slots(&mut self) {
        let mut taken = Vec::new();
        while taken.len() < MAX_CONNECTIONS && !self.stop.is_cancelled() {
            match try_connect(&self.admin_url).await {
                Some(session) => taken.push(session),
                None => break,
            }
        }
        self.tally.add("times all slots were taken", 1);
        if self.random.random_bool(0.5) {
            self.proxies[self.random.random_range(0..2)].cut();
        }
        let time = self.millis(100..1_000);
        self.pause(time).await;
    }
}

/// A connection, unless the database refuses it.
async fn try_connect(url: &str) -> Option<Client> {
    let connected = timeout(PATIENCE, tokio_postgres::connect(url, NoTls)).await;
    let (client, connection) = connected.ok()?.ok()?;
    tokio::spawn(connection);
    Some(client)
}
