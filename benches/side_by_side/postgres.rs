//! The PostgreSQL that all contenders share: a cluster of its own, with fsync on.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    Result,
    guardian::{As, Guarded, command, directory},
};

/// Settings, the same for all contenders: durable, and large enough that checkpoints do not
/// decide the result.
const SETTINGS: [&str; 6] = [
    "fsync=on",
    "synchronous_commit=on",
    "listen_addresses=",
    "max_connections=300",
    "max_wal_size=4GB",
    "checkpoint_timeout=15min",
];

/// The number of calls whose rows and used index pages fit into 1 GB of shared buffers.
const CALLS_IN_1_GB: u64 = 1_600_000;

/// A cluster that ends, with its files, when this is dropped.
pub(crate) struct Postgres {
    bin: PathBuf,
    dir: PathBuf,
    _server: Guarded,
}

impl Postgres {
    /// Creates and starts a cluster for this many calls.
    pub(crate) fn start(calls: u64) -> Result<Self> {
        let bin = binaries()?;
        let dir = directory(As::Ordinary)?;
        let data = dir.join("data");
        let mut initdb = command(&bin.join("initdb"), As::Ordinary)?;
        initdb.arg("-D").arg(&data);
        initdb.args("-U voicecall -E UTF8 --locale=C -A trust --no-sync".split(' '));
        run(&mut initdb)?;
        let mut postgres = Command::new(bin.join("postgres"));
        postgres.arg("-D").arg(&data);
        let socket = format!("unix_socket_directories={}", dir.display());
        let buffers = format!("shared_buffers={}GB", calls.div_ceil(CALLS_IN_1_GB).max(1));
        for setting in SETTINGS.into_iter().chain([&*socket, &*buffers]) {
            postgres.args(["-c", setting]);
        }
        let server = Guarded::start(&postgres, As::Ordinary, "QUIT", &dir)?;
        let started = Instant::now();
        let ready = || fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        while !ready().contains("ready") {
            if started.elapsed() > Duration::from_secs(30) {
                let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
                return Err(format!("PostgreSQL does not start: {log}").into());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(Self {
            bin,
            dir,
            _server: server,
        })
    }

    /// The connection string of one of its databases.
    pub(crate) fn url(&self, database: &str) -> String {
        let dir = self.dir.display();
        format!("host={dir} user=voicecall dbname={database}")
    }

    /// The directory of its files, which its account can write to.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs SQL in a database, and returns the first column of the result.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> Result<String> {
        with_input(self.psql(database), sql)
    }

    /// psql on a database, which takes SQL from its standard input.
    pub(crate) fn psql(&self, database: &str) -> Command {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        psql.arg(self.url(database));
        psql
    }

    /// Runs a checkpoint, so that the next measurement does not write what earlier ones
    /// dirtied.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        self.sql("postgres", "CHECKPOINT").map(drop)
    }

    /// pgbench on a database.
    pub(crate) fn pgbench(&self, database: &str, script: &str, options: &[&str]) -> Result<String> {
        let mut pgbench = Command::new(self.bin.join("pgbench"));
        pgbench.args(["-n", "-M", "prepared", "-f", "/dev/stdin"]);
        pgbench.args(options).arg(self.url(database));
        with_input(pgbench, script)
    }

    /// The version, as the server reports it.
    pub(crate) fn version(&self) -> Result<String> {
        let version = self.sql("postgres", "SHOW server_version")?;
        Ok(version.split(' ').next().unwrap_or_default().to_owned())
    }
}

/// Runs a command that must succeed, and returns its output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?.trim().to_owned());
    }
    let name = Path::new(command.get_program()).display();
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

fn with_input(mut command: Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let stdin = child.stdin.take();
    stdin.ok_or("no pipe")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?.trim().to_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into())
}

/// The newest server programs on the machine.
fn binaries() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")?;
    let newest = versions.filter_map(|entry| {
        let entry = entry.ok()?;
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let bin = entry.path().join("bin");
        bin.join("postgres").exists().then_some((version, bin))
    });
    let (_, bin) = newest.max().ok_or("PostgreSQL is not installed")?;
    Ok(bin)
}
