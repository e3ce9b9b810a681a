//! What the tests have in common: places that are cleaned up, queries, and a service
//! in a process of its own that can be killed. That process is this test binary
//! again, running the test `service` alone.

use std::{
    env, fs,
    io::{self, BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{self, Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_postgres::{NoTls, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;
use voicecall::postgres::{Postgres, Settings};

/// Far more than anything takes: what is waited for are conditions.
const PATIENCE: Duration = Duration::from_secs(60);
const DATA_DIR: &str = "EMBEDDED_POSTGRES_TEST_DATA_DIR";

/// A path under `/tmp` that no other test uses. Not under `TMPDIR`: another user
/// has to get there, and a socket's path must be short.
fn unique(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = process::id();
    PathBuf::from(format!("/tmp/embedded-{name}-{process}-{next}"))
}

/// A directory that goes away, with whatever servers still run in it.
pub(crate) struct Scratch {
    root: PathBuf,
    data: PathBuf,
}

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let root = unique(name);
        fs::create_dir(&root).expect("a scratch directory");
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).expect("opened");
        let data = root.join("data");
        Self { root, data }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A data directory that does not exist yet.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Of a test that failed, or that killed the service.
        let deadline = Instant::now() + Duration::from_secs(15);
        while let Some(pid) = pids_in(&self.root).first()
            && Instant::now() < deadline
        {
            signal(*pid, "QUIT");
            signal(*pid, "CONT");
            thread::sleep(Duration::from_millis(50));
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// The processes whose working directory is in `dir`, as every server's is.
pub(crate) fn pids_in(dir: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
        })
        .collect()
}

pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// The server's process, as it says itself.
pub(crate) fn postmaster(data_dir: &Path) -> Option<i32> {
    let file = fs::read_to_string(data_dir.join("postgres/postmaster.pid")).ok()?;
    file.lines().next()?.parse().ok()
}

pub(crate) fn signal(pid: i32, name: &str) {
    let signal: Signal = format!("SIG{name}").parse().expect("a signal");
    let _ = kill(Pid::from_raw(pid), signal);
}

/// The process's command line; empty when it has ended.
pub(crate) fn command(pid: i32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).into_owned()
}

/// Whether the process runs; a zombie does not.
pub(crate) fn exists(pid: i32) -> bool {
    !command(pid).is_empty()
}

/// A process that has nothing to do with it.
pub(crate) struct Unrelated(Child);

impl Unrelated {
    pub(crate) fn start(uid: u32) -> Self {
        let mut command = Command::new("sleep");
        command.arg("3600").stdout(Stdio::null());
        if is_root() {
            command.uid(uid);
        }
        Self(command.spawn().expect("it sleeps"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.0.try_wait().expect("known").is_none()
    }
}

impl Drop for Unrelated {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The first column of what a statement returns.
pub(crate) async fn query(url: &str, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let work = async {
        let messages = client.simple_query(sql).await;
        // Ends the connection.
        drop(client);
        messages
    };
    let (messages, _) = tokio::join!(work, connection);
    let rows = messages?.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
        _ => None,
    });
    Ok(rows.collect())
}

pub(crate) async fn add_value(url: &str, value: i32) {
    let sql = format!("CREATE TABLE IF NOT EXISTS v (v int); INSERT INTO v VALUES ({value})");
    query(url, &sql).await.expect("committed");
}

pub(crate) async fn values(url: &str) -> Vec<String> {
    let values = query(url, "SELECT v FROM v ORDER BY v").await;
    values.expect("read")
}

/// The process of a backend that runs `pg_sleep`, once there is one.
pub(crate) async fn sleeping_backend(url: &str) -> i32 {
    let sql = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
    let mut backend = None;
    eventually("a backend sleeps", async || {
        let pids = query(url, sql).await.unwrap_or_default();
        backend = pids.first().and_then(|pid| pid.parse().ok());
        backend.is_some()
    })
    .await;
    backend.expect("it was waited for")
}

/// A service in a process of its own.
pub(crate) struct Helper {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    program: PathBuf,
}

impl Helper {
    pub(crate) fn start(data_dir: &Path, uid: Option<u32>) -> Self {
        // A copy, since another user may not reach the build directory.
        let program = unique("helper");
        fs::copy(env::current_exe().expect("known"), &program).expect("copied");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("opened");

        let mut command = Command::new(&program);
        command.args(["--exact", "helper::service", "--ignored"]);
        command.args(["--nocapture", "--test-threads=1"]);
        command.env(DATA_DIR, data_dir).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let mut child = command.spawn().expect("it starts");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::channel(100);
        // Ends with the process's output.
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.blocking_send(line);
            }
        });
        Self {
            child,
            stdin,
            lines,
            program,
        }
    }

    /// Waits for a line that begins so, and returns the rest of it.
    pub(crate) async fn says(&mut self, beginning: &str) -> String {
        let mut said = Vec::new();
        let search = async {
            while let Some(line) = self.lines.recv().await {
                if let Some(rest) = line.strip_prefix(beginning) {
                    return Some(rest.to_owned());
                }
                said.push(line);
            }
            None
        };
        let found = timeout(PATIENCE, search).await.ok().flatten();
        found.unwrap_or_else(|| panic!("it never said {beginning:?}, but {said:?}"))
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    /// Lets it stop in order.
    pub(crate) async fn finish(mut self) {
        self.stdin = None;
        self.says("stopped").await;
        let status = self.child.wait().expect("gone");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.program);
    }
}

/// The service that other tests start, and often kill.
#[tokio::test]
#[ignore = "other tests start it, in a process of its own"]
async fn service() {
    let Some(data_dir) = env::var_os(DATA_DIR) else {
        return;
    };
    let settings = Settings {
        data_dir: Some(data_dir.into()),
        ..Settings::default()
    };
    // The test runner has left a line unfinished.
    println!();
    match Postgres::start(settings, &CancellationToken::new()).await {
        Ok(postgres) => {
            println!("ready {}", postgres.database_url());
            let until_eof = || io::copy(&mut io::stdin(), &mut io::sink());
            let _ = spawn_blocking(until_eof).await;
            postgres.stop().await;
            println!("stopped");
        }
        Err(error) => println!("refused {error}"),
    }
}
