//! One server process: starting it, waiting until it is ready or has ended, and stopping it.
//! `supervisor` decides what happens after it has ended.

use std::{io, process::ExitStatus, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::Child,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    Error,
    launch::Launch,
    postmaster::{self, ESCALATION},
};

/// Long enough for recovery after a crash, which would only start again after a kill.
const MAX_START: Duration = Duration::from_secs(30 * 60);
const LOG_EVERY: Duration = Duration::from_secs(5);
/// Polls are frequent at first, because most servers are ready soon.
const POLL_EVERY: Duration = Duration::from_millis(5);
const SLOW_POLL_EVERY: Duration = Duration::from_millis(100);

/// A server process. Dropping this asks the process to stop, without waiting.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    pid: Pid,
}

impl Server {
    /// Starts the process. No other server may run on the cluster.
    pub(super) fn spawn(launch: &Launch) -> Result<Self, Error> {
        let program = launch.binaries.postgres();
        let child = launch
            .command()?
            .spawn()
            .map_err(Error::io("run", &program))?;
        // A child that has not been waited for always has an id.
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .map(Pid::from_raw)
            .ok_or_else(|| Error::io("follow", &program)(io::ErrorKind::NotFound.into()))?;
        Ok(Self { child, pid })
    }

    /// Waits until the server accepts connections.
    pub(super) async fn ready(
        &mut self,
        launch: &Launch,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let began = Instant::now();
        let mut last_logged = began;
        loop {
            // The socket is checked first: without it, the file may be from an earlier run.
            if launch.socket.socket().exists() && postmaster::is_ready(&launch.cluster, self.pid) {
                return Ok(());
            }
            if began.elapsed() > MAX_START {
                return Err(Error::StartTimeout {
                    minutes: MAX_START.as_secs() / 60,
                    logs: launch.logs.dir().to_owned(),
                });
            }
            if last_logged.elapsed() > LOG_EVERY {
                last_logged = Instant::now();
                let seconds = began.elapsed().as_secs();
                info!(
                    seconds,
                    "PostgreSQL is still starting; recovery after a crash can take minutes"
                );
            }
            let dense = began.elapsed() < Duration::from_secs(2);
            let pause = if dense { POLL_EVERY } else { SLOW_POLL_EVERY };
            tokio::select! {
                () = cancel.cancelled() => return Err(Error::Cancelled),
                ended = self.ended() => return Err(Error::Ended {
                    status: ended,
                    reason: launch.logs.last_error(),
                    logs: launch.logs.dir().to_owned(),
                }),
                () = sleep(pause) => {}
            }
        }
    }

    /// Waits until the process ends, and returns how. Cancel-safe.
    pub(super) async fn ended(&mut self) -> String {
        describe(self.child.wait().await)
    }

    /// Stops the process if it has not ended, by the signals of [`ESCALATION`].
    pub(super) async fn stop(mut self) {
        for (signal, patience) in ESCALATION {
            self.send(signal);
            if timeout(patience, self.child.wait()).await.is_ok() {
                return;
            }
            warn!(pid = %self.pid, %signal, "PostgreSQL does not stop");
        }
        error!(pid = %self.pid, "PostgreSQL cannot be stopped; leaving it to the next start");
    }

    /// Sends a signal, unless the process has been waited for: then its id may be another
    /// process's.
    fn send(&self, signal: Signal) {
        if self.child.id().is_some() {
            // Fails if the process has just ended by itself.
            let _ = kill(self.pid, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.send(Signal::SIGINT);
    }
}

fn describe(ended: io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}
