//! One server process of ours: starting it, waiting until it is ready, until it
//! ends, and stopping it. What happens after it ended is `supervisor`'s.

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

/// Recovery after a crash is to be waited for: killing it would only start it over.
const MAX_START: Duration = Duration::from_secs(30 * 60);
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Most starts are over within the first polls, which are therefore dense.
const POLL_EVERY: Duration = Duration::from_millis(5);
const SLOW_POLL_EVERY: Duration = Duration::from_millis(100);

/// A server process. Dropping it asks it to stop, for want of time to wait.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    pid: Pid,
}

impl Server {
    /// Starts the process. There must be no other on the cluster.
    pub(super) fn spawn(launch: &Launch) -> Result<Self, Error> {
        let program = launch.binaries.postgres();
        let child = launch
            .command()?
            .spawn()
            .map_err(Error::io("run", &program))?;
        // The number of a child that nobody has waited for is always known.
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
        let mut told = began;
        loop {
            // The socket first: while there is none, the file may be of an earlier run.
            if launch.socket.socket().exists() && postmaster::is_ready(&launch.cluster, self.pid) {
                return Ok(());
            }
            if began.elapsed() > MAX_START {
                return Err(Error::StartTimeout {
                    minutes: MAX_START.as_secs() / 60,
                    logs: launch.logs.dir().to_owned(),
                });
            }
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
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
                    reason: launch.logs.last_words(),
                    logs: launch.logs.dir().to_owned(),
                }),
                () = sleep(pause) => {}
            }
        }
    }

    /// Waits until the process ends, and says how. Can be called off and repeated.
    pub(super) async fn ended(&mut self) -> String {
        describe(self.child.wait().await)
    }

    /// Stops the process, if it has not ended: gently, then less so.
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

    /// Nothing, once the process has been waited for: the number may be another's.
    fn send(&self, signal: Signal) {
        if self.child.id().is_some() {
            // If it has ended by itself, all the better.
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
