//! Keeps a server running: starts it, restarts it when it dies, and stops it. It owns the
//! server process and the lock on the data directory.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Error, data_dir::DataDir, launch::Launch, postmaster, server::Server};

/// How long the first start waits for the remains of an earlier server.
const LEFT_OVER_TIMEOUT: Duration = Duration::from_secs(60);
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// A server that ran for longer than this is restarted without a pause.
const STABLE_AFTER: Duration = Duration::from_secs(30);
const CHECK_LOGS_EVERY: Duration = Duration::from_secs(60);

/// Starts the first server. Transient failures are retried; any other is returned at once, for
/// the operator.
pub(super) async fn start(launch: &Launch, cancel: &CancellationToken) -> Result<Server, Error> {
    let deadline = Instant::now() + LEFT_OVER_TIMEOUT;
    let mut pause = MIN_PAUSE;
    loop {
        match attempt(launch, cancel).await {
            Err(error) if error.is_transient() && Instant::now() < deadline => {
                warn!(%error, "an earlier PostgreSQL is still shutting down; retrying");
                tokio::select! {
                    () = cancel.cancelled() => return Err(Error::Cancelled),
                    () = sleep(pause) => pause = longer(pause),
                }
            }
            outcome => return outcome,
        }
    }
}

async fn attempt(launch: &Launch, cancel: &CancellationToken) -> Result<Server, Error> {
    postmaster::clear_left_over(&launch.cluster, cancel).await?;
    launch.socket.clear();
    let mut server = Server::spawn(launch)?;
    match server.ready(launch, cancel).await {
        Ok(()) => Ok(server),
        Err(error) => {
            server.stop().await;
            Err(error)
        }
    }
}

/// Keeps a server running until `stop`, stops it, and then releases the lock.
pub(super) async fn supervise(
    mut server: Server,
    launch: Launch,
    data_dir: DataDir,
    stop: CancellationToken,
) {
    let mut pause = Duration::ZERO;
    loop {
        let since = Instant::now();
        let Some(ended) = watch(&mut server, &launch, &stop).await else {
            server.stop().await;
            info!("the embedded PostgreSQL has stopped");
            break;
        };
        pause = if since.elapsed() > STABLE_AFTER {
            Duration::ZERO
        } else {
            longer(pause)
        };
        warn!(%ended, ?pause, "PostgreSQL ended unexpectedly; restarting it");
        match restart(&launch, pause, &stop).await {
            Some(next) => server = next,
            None => break,
        }
    }
    drop(data_dir);
}

/// Waits until the server ends, and returns how; `None` if it has to be stopped first.
async fn watch(server: &mut Server, launch: &Launch, stop: &CancellationToken) -> Option<String> {
    let mut logs_due = interval(CHECK_LOGS_EVERY);
    logs_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return None,
            ended = server.ended() => return Some(ended),
            _ = logs_due.tick() => launch.logs.truncate_large(),
        }
    }
}

/// Retries until a server is ready, because the service cannot work without one; `None` if it
/// has to stop. It may take a few attempts until the backends of the dead server have released
/// its shared memory.
async fn restart(launch: &Launch, pause: Duration, stop: &CancellationToken) -> Option<Server> {
    let began = Instant::now();
    let mut pause = pause;
    loop {
        tokio::select! {
            () = stop.cancelled() => return None,
            () = sleep(pause) => {}
        }
        match attempt(launch, stop).await {
            Ok(server) => {
                let seconds = began.elapsed().as_secs_f32();
                info!(seconds, "PostgreSQL is ready again");
                return Some(server);
            }
            Err(Error::Cancelled) => return None,
            Err(error) => {
                pause = longer(pause);
                warn!(%error, ?pause, "PostgreSQL does not start; retrying");
            }
        }
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(MIN_PAUSE, MAX_PAUSE)
}
