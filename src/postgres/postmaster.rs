//! A server as seen from outside, by the `postmaster.pid` that it keeps in its
//! cluster: whether ours is ready, and whether one of an earlier run is left over.
//! Starting and watching our own is `server`'s and `supervisor`'s.

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

/// How a server is stopped, and for how long each way is waited for: fast, with a
/// checkpoint; immediate, so that the next start recovers; and by force.
pub(super) const ESCALATION: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_secs(30)),
    (Signal::SIGQUIT, Duration::from_secs(10)),
    (Signal::SIGKILL, Duration::from_secs(10)),
];
const POLL_EVERY: Duration = Duration::from_millis(20);

/// What the file says.
#[derive(Debug, PartialEq, Eq)]
enum PidFile {
    Absent,
    /// A power failure can leave it empty.
    Damaged,
    /// Of a backend that someone runs by hand, without a server.
    SingleUser,
    Server {
        pid: Pid,
        ready: bool,
    },
}

impl PidFile {
    fn read(cluster: &Path) -> Self {
        // Anything unreadable is the server's to complain about.
        fs::read_to_string(path(cluster)).map_or(Self::Absent, |text| Self::parse(&text))
    }

    /// The first line is the process, the eighth its state, padded.
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

/// Whether the server that is process `pid` accepts connections.
pub(super) fn is_ready(cluster: &Path, pid: Pid) -> bool {
    PidFile::read(cluster) == PidFile::Server { pid, ready: true }
}

/// Sees to it that no server of an earlier run stands in the way. To be called only
/// by the holder of the data directory's lock, without a server of its own.
pub(super) async fn settle(cluster: &Path, cancel: &CancellationToken) -> Result<(), Error> {
    match PidFile::read(cluster) {
        PidFile::Damaged => remove(cluster),
        PidFile::Server { pid, .. } if serves(pid, cluster) => {
            stop_left_over(pid, cluster, cancel).await
        }
        // PostgreSQL knows a stale file by itself when the process is gone, but not
        // when its number is another program's now.
        PidFile::Server { pid, .. } if kill(pid, None).is_ok() => remove(cluster),
        PidFile::Server { .. } | PidFile::SingleUser | PidFile::Absent => Ok(()),
    }
}

/// Backends that outlive their server would not be overlooked without the file: the
/// shared memory that they are attached to is found by the cluster's own identity.
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
    for (signal, patience) in ESCALATION {
        // Whether that worked shows in the process.
        let _ = kill(pid, signal);
        let deadline = Instant::now() + patience;
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

/// Whether the process is a server on this cluster, and not one that has its number
/// by chance or a zombie.
fn serves(pid: Pid, cluster: &Path) -> bool {
    let arguments = arguments(pid);
    let mut words = arguments.split(|byte| *byte == 0);
    let is_postgres = words
        .next()
        .map(|program| Path::new(OsStr::from_bytes(program)))
        .and_then(Path::file_name)
        .is_some_and(|name| name == "postgres" || name == "postmaster");
    // Which of the two can be seen depends on who started it, and on who we are.
    let names_it = words.any(|word| word == cluster.as_os_str().as_bytes());
    let is_in_it = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|dir| dir == cluster);
    is_postgres && (names_it || is_in_it)
}

/// The process's command line, its words ended by zeros; empty when it is gone.
fn arguments(pid: Pid) -> Vec<u8> {
    if Path::new("/proc/self/cmdline").exists() {
        return fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    }
    // Not Linux. A data directory with spaces is not recognised here.
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
