//! A cluster of PostgreSQL: how it starts, is killed and follows another, and the databases that
//! tests get of it.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::OnceCell;
use tokio_postgres::Client;
use voicecall::store::{self, Connector};

use super::connect;
use crate::support::clock::Clock;

/// A cluster that ends, with all its files, when it is dropped or when the test
/// process ends, however it ends.
pub(crate) struct Cluster {
    dir: PathBuf,
    port: u16,
    /// Its standard input is what keeps it alive.
    control: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    guardian: Mutex<Child>,
}

/// Whether a cluster writes through to the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// As in production.
    Durable,
    /// For tests that do not kill the server.
    Fast,
}

/// Which network a cluster lives in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    /// That of the test.
    Shared,
    /// A namespace that goes with the processes in it.
    Own,
}

impl Network {
    /// A shell in this network. In one of its own it has become this account
    /// already.
    fn shell(self, account: Option<(u32, u32)>) -> Command {
        let Self::Own = self else {
            return Command::new("sh");
        };
        let (uid, gid) = account.expect("only root makes namespaces");
        let mut command = Command::new("unshare");
        command.args(["--net", "setpriv", "--clear-groups"]);
        command.args([format!("--reuid={uid}"), format!("--regid={gid}")]);
        command.arg("sh");
        command
    }
}

/// A setting for tests that kill servers, but not the operating system: what it
/// was given survives.
pub(crate) const NO_FSYNC: &str = "fsync=off";

static SHARED: OnceCell<Cluster> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);
static CLUSTERS: AtomicU32 = AtomicU32::new(0);
const TEMPLATE: &str = "voicecall_template";

impl Cluster {
    /// Makes and starts a cluster that is reached by its socket.
    pub(crate) fn start(durability: Durability) -> Self {
        Self::start_with(durability, 5432, |_| Vec::new())
    }

    /// A standby that follows this cluster.
    pub(crate) fn standby(&self) -> Self {
        Self::standby_of(&self.url("postgres"), self.port)
    }

    /// A standby of the cluster that this connection string reaches.
    pub(crate) fn standby_of(primary: &str, port: u16) -> Self {
        let settings = |_: &Path| {
            // A standby that lost its primary looks for it again at once.
            let retry = "wal_retrieve_retry_interval=100ms";
            vec![NO_FSYNC.to_owned(), retry.to_owned()]
        };
        let network = Network::Shared;
        Self::launch(
            Durability::Durable,
            port,
            Some(primary),
            network,
            None,
            settings,
        )
    }

    /// The same with a port and settings (`name=value`) of its own. `prepare`
    /// gets the directory and may leave files for the server in it.
    pub(crate) fn start_with(
        durability: Durability,
        port: u16,
        prepare: impl FnOnce(&Path) -> Vec<String>,
    ) -> Self {
        Self::launch(durability, port, None, Network::Shared, None, prepare)
    }

    /// Makes and starts a cluster that takes its time from this clock, with these settings
    /// (`name=value`).
    pub(crate) fn start_with_clock(clock: &Clock, settings: &[&str]) -> Self {
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let (durability, network) = (Durability::Fast, Network::Shared);
        Self::launch(durability, 5432, None, network, Some(clock), |_| settings)
    }

    /// The same in a network namespace of its own, which only root can make.
    pub(crate) fn start_in_namespace(
        port: u16,
        prepare: impl FnOnce(&Path) -> Vec<String>,
    ) -> Self {
        Self::launch(Durability::Durable, port, None, Network::Own, None, prepare)
    }

    fn launch(
        durability: Durability,
        port: u16,
        standby_of: Option<&str>,
        network: Network,
        clock: Option<&Clock>,
        prepare: impl FnOnce(&Path) -> Vec<String>,
    ) -> Self {
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("voicecall-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&dir).expect("the directory is new");
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).expect("it is ours");
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/service/support/postgres/cluster.sh"
        );
        let script = std::fs::read_to_string(script).expect("the script is there");
        let account = unprivileged_account();
        let mut command = network.shell(account);
        command.args(["-c", &script, "cluster.sh"]);
        command.arg(binaries()).arg(&dir).arg(port.to_string());
        if durability == Durability::Fast {
            command.args(["-c", "fsync=off", "-c", "synchronous_commit=off"]);
        }
        for setting in prepare(&dir) {
            command.args(["-c", &setting]);
        }
        command.env("STANDBY_OF", standby_of.unwrap_or_default());
        command.envs(clock.map(Clock::for_cluster).unwrap_or_default());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.process_group(0).current_dir("/");
        if let Some((uid, gid)) = account {
            let files = std::fs::read_dir(&dir).expect("it is ours");
            let files = files.map(|file| file.expect("it is ours").path());
            for path in files.chain([dir.clone()]) {
                std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("root may");
            }
            if network == Network::Shared {
                command.uid(uid).gid(gid);
            }
        }
        let mut guardian = command.spawn().expect("sh runs");
        let stdin = guardian.stdin.take().expect("piped");
        let stdout = BufReader::new(guardian.stdout.take().expect("piped"));
        let cluster = Self {
            dir,
            port,
            control: Mutex::new((stdin, stdout)),
            guardian: Mutex::new(guardian),
        };
        cluster.expect_line("started");
        cluster
    }

    /// The cluster that tests share.
    pub(crate) async fn shared() -> &'static Self {
        SHARED
            .get_or_init(|| async { Self::start(Durability::Fast) })
            .await
    }

    /// The directory of its socket and of the files that it was prepared with.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What its server has logged.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.dir.join("log")).expect("it is there");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The socket where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join(format!(".s.PGSQL.{}", self.port))
    }

    /// Kills every process of the server (SIGKILL).
    pub(crate) fn kill(&self) {
        self.command("kill", "killed");
    }

    /// Starts the server again.
    pub(crate) fn restart(&self) {
        self.command("start", "started");
    }

    /// Shuts the server down, which waits until its standbys have all there is.
    pub(crate) fn shut_down(&self) {
        self.command("shutdown", "shut down");
    }

    /// Starts the server, which was shut down, as a standby of another.
    pub(crate) fn follow(&self, primary: &Self) {
        let command = format!("follow {}", primary.url("postgres"));
        self.command(&command, "started");
    }

    /// Stops every process of the server where it is (SIGSTOP).
    pub(crate) fn pause(&self) {
        self.command("pause", "paused");
    }

    /// Lets a paused server go on.
    pub(crate) fn resume(&self) {
        self.command("resume", "resumed");
    }

    /// The process that holds the server's network namespace.
    pub(crate) fn guardian_pid(&self) -> u32 {
        self.guardian.lock().expect("no test panics here").id()
    }

    /// The connection string of one of its databases.
    pub(crate) fn url(&self, database: &str) -> String {
        format!(
            "host={} port={} user=voicecall dbname={database}",
            self.dir.display(),
            self.port
        )
    }

    /// A new database with the present schema, and its connection string.
    pub(crate) async fn database(&self) -> String {
        static MIGRATION: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let client = connect(&self.url("postgres")).await;
        {
            let _one_at_a_time = MIGRATION.lock().await;
            let query = "SELECT FROM pg_database WHERE datname = $1";
            if client
                .query_opt(query, &[&TEMPLATE])
                .await
                .expect("it answers")
                .is_none()
            {
                let sql = format!("CREATE DATABASE {TEMPLATE}_new");
                client.batch_execute(&sql).await.expect("the name is new");
                let connector =
                    Connector::new(&self.url(&format!("{TEMPLATE}_new"))).expect("valid");
                store::migrate(&connector)
                    .await
                    .expect("the migrations run");
                let sql = format!("ALTER DATABASE {TEMPLATE}_new RENAME TO {TEMPLATE}");
                retry_while_in_use(&client, &sql).await;
            }
        }
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let sql = format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}");
        retry_while_in_use(&client, &sql).await;
        self.url(&name)
    }

    fn command(&self, command: &str, answer: &str) {
        {
            let mut control = self.control.lock().expect("no test panics here");
            writeln!(control.0, "{command}").expect("the guardian reads");
        }
        self.expect_line(answer);
    }

    fn expect_line(&self, expected: &str) {
        let mut line = String::new();
        let mut control = self.control.lock().expect("no test panics here");
        control.1.read_line(&mut line).expect("the guardian writes");
        assert_eq!(
            line.trim(),
            expected,
            "the guardian of the test cluster ended"
        );
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(dir) = std::env::var_os("VOICECALL_TEST_LOGS") {
            let file = self.dir.file_name().expect("it has a name");
            let copy = PathBuf::from(dir)
                .join(file)
                .with_extension("postgresql.log");
            std::fs::write(copy, self.log()).expect("the directory is there");
        }
        // The holder of the lock has ended; the guardian ends with its input.
        let guardian = self.guardian.get_mut().expect("no test panics here");
        let (stdin, _) = self.control.get_mut().expect("no test panics here");
        let pipe = std::mem::replace(stdin, spare_input());
        drop(pipe);
        guardian.wait().expect("it is our child");
    }
}

/// A pipe to nowhere, to put in the place of one that is to be closed.
fn spare_input() -> ChildStdin {
    let mut child = Command::new("true")
        .stdin(Stdio::piped())
        .spawn()
        .expect("true runs");
    let stdin = child.stdin.take().expect("piped");
    child.wait().expect("it is our child");
    stdin
}

/// A template cannot be used while a connection to it is still closing.
async fn retry_while_in_use(client: &Client, sql: &str) {
    loop {
        match client.batch_execute(sql).await {
            Ok(()) => return,
            Err(error) if error.code().is_some_and(|code| code.code() == "55006") => {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("{sql}: {error:?}"),
        }
    }
}

/// The directory of the server's programs, and of those that come with it.
pub(crate) fn binaries() -> PathBuf {
    let root = Path::new("/usr/lib/postgresql");
    let versions = std::fs::read_dir(root).expect("PostgreSQL is installed: see the README");
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            bin.join("postgres").exists().then_some((version, bin))
        })
        .collect();
    found.sort();
    found
        .pop()
        .expect("PostgreSQL is installed: see the README")
        .1
}

/// PostgreSQL refuses to run as root.
pub(crate) fn unprivileged_account() -> Option<(u32, u32)> {
    let id = |args: &[&str]| -> Option<u32> {
        let output = Command::new("id").args(args).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    let is_root = id(&["-u"]) == Some(0);
    is_root.then(|| {
        let account = |name| Some((id(&["-u", name])?, id(&["-g", name])?));
        account("postgres")
            .or_else(|| account("nobody"))
            .expect("nobody is on every machine")
    })
}
