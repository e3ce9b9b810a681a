//! The `postmaster.pid` that a server keeps in its cluster: whether the server is ready, and
//! whether one of an earlier run is left over. `server` and `supervisor` run the server of this
//! process.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Error;

/// The signals that stop a server, and how long to wait after each: a fast shutdown, with a
/// checkpoint; an immediate one, after which the next start recovers; and a kill.
pub(super) const ESCALATION: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_secs(30)),
    (Signal::SIGQUIT, Duration::from_secs(10)),
    (Signal::SIGKILL, Duration::from_secs(10)),
];
const POLL_EVERY: Duration = Duration::from_millis(20);

/// The contents of the file.
#[derive(Debug, PartialEq, Eq)]
enum PidFile {
    Absent,
    /// A power failure can leave it empty.
    Damaged,
    /// Written by a backend that is run by hand, in single-user mode.
    SingleUser,
    Server {
        pid: Pid,
        ready: bool,
    },
}

impl PidFile {
    fn read(cluster: &Path) -> Self {
        // If the file is unreadable, the server will report that.
        fs::read_to_string(path(cluster)).map_or(Self::Absent, |text| Self::parse(&text))
    }

    /// The first line is the process id, the eighth the state, padded with spaces.
    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        match lines.next().and_then(|line| line.trim().parse().ok()) {
            None | Some(0) => Self::Damaged,
            Some(..0) => Self::SingleUser,
            Some(pid) => Self::Server {
                pid: Pid::from_raw(pid),
                ready: lines.nth(6).is_some_and(|state| state.trim() == "ready"),
            },
        }
    }
}

fn path(cluster: &Path) -> PathBuf {
    cluster.join("postmaster.pid")
}

/// Whether the server with process id `pid` accepts connections.
pub(super) fn is_ready(cluster: &Path, pid: Pid) -> bool {
    PidFile::read(cluster) == PidFile::Server { pid, ready: true }
}

/// Stops a server of an earlier run, and removes a stale file. Must be called only by the
/// holder of the data directory's lock, while it runs no server.
pub(super) async fn clear_left_over(
    cluster: &Path,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    match PidFile::read(cluster) {
        PidFile::Damaged => remove(cluster),
        PidFile::Server { pid, .. } if serves(pid, cluster) => {
            stop_left_over(pid, cluster, cancel).await
        }
        // PostgreSQL itself recognizes a stale file if the process has ended, but not if
        // another program now has its process id.
        PidFile::Server { pid, .. } if kill(pid, None).is_ok() => remove(cluster),
        PidFile::Server { .. } | PidFile::SingleUser | PidFile::Absent => Ok(()),
    }
}

/// Safe even if backends have outlived their server: a new server finds the shared memory that
/// they are attached to without the file, by the identity of the cluster.
fn remove(cluster: &Path) -> Result<(), Error> {
    let path = path(cluster);
    warn!(path = %path.display(), "removing a stale PID file: the server that wrote it is gone");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", &path)(error))
        }
        _ => Ok(()),
    }
}

async fn stop_left_over(pid: Pid, cluster: &Path, cancel: &CancellationToken) -> Result<(), Error> {
    info!(%pid, "stopping a PostgreSQL server that an earlier run left running");
    for (signal, timeout) in ESCALATION {
        // The result does not matter: the loop checks whether the process has ended.
        let _ = kill(pid, signal);
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if !serves(pid, cluster) {
                return Ok(());
            }
            tokio::select! {
                () = cancel.cancelled() => return Err(Error::Cancelled),
                () = sleep(POLL_EVERY) => {}
            }
        }
    }
    Err(Error::LeftOver { pid: pid.as_raw() })
}

/// Whether the process is a server on this cluster, and neither a zombie nor another program
/// that has its process id by chance.
fn serves(pid: Pid, cluster: &Path) -> bool {
    let arguments = arguments(pid);
    let mut words = arguments.split(|byte| *byte == 0);
    let is_postgres = words
        .next()
        .map(|program| Path::new(OsStr::from_bytes(program)))
        .and_then(Path::file_name)
        .is_some_and(|name| name == "postgres" || name == "postmaster");
    // Which of the two is visible depends on how it was started, and on our own account.
    let names_it = words.any(|word| word == cluster.as_os_str().as_bytes());
    let is_in_it = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|dir| dir == cluster);
    is_postgres && (names_it || is_in_it)
}

/// The command line of the process, its words terminated by zeros; empty if it has ended.
fn arguments(pid: Pid) -> Vec<u8> {
    if Path::new("/proc/self/cmdline").exists() {
        return fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    }
    // Not Linux. Data directories with spaces are not recognized here.
    let mut ps = Command::new("ps");
    ps.args(["-ww", "-o", "command=", "-p"])
        .arg(pid.to_string());
    let mut words = ps.output().map(|output| output.stdout).unwrap_or_default();
    for byte in &mut words {
        if byte.is_ascii_whitespace() {
            *byte = 0;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_pid_file() {
        let file = |pid, state| format!("{pid}\n/data\n1700000000\n5432\n/s\n\n  1 2\n{state}\n");
        let server = |ready| PidFile::Server {
            pid: Pid::from_raw(42),
            ready,
        };
        assert_eq!(PidFile::parse(&file(42, "ready   ")), server(true));
        assert_eq!(PidFile::parse(&file(42, "starting")), server(false));
        assert_eq!(PidFile::parse("42\n/data\n"), server(false));
        assert_eq!(PidFile::parse(&file(-42, "")), PidFile::SingleUser);
        assert_eq!(PidFile::parse(""), PidFile::Damaged);
        assert_eq!(PidFile::parse("0\n"), PidFile::Damaged);
    }

    #[test]
    fn an_unrelated_process_does_not_serve() {
        assert!(!serves(Pid::this(), Path::new("/")));
    }
}
