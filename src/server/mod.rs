//! The process around the API: sockets, health, and graceful shutdown.
//!
//! - [`run`] puts the layers together, serves until shutdown, then drains
//! - `workers` are the threads that serve the connections; `connection` is one client's,
//!   `handshake` its beginning; `read_turns` limits what it reads at once, and
//!   `write_coalescing` combines its small writes
//! - [`Security`] is who may connect and call; `tls` is the server's certificate
//! - `connections` are all that are open, and which of them make room for another
//!
//! It owns every task that it starts. It deliberately knows nothing of what the API does.

mod connection;
mod connections;
mod control_frames;
mod handshake;
mod read_turns;
mod security;
#[cfg(test)]
mod tests;
mod tls;
mod workers;
mod write_coalescing;

pub use connection::Limits as ConnectionLimits;
pub use security::Security;
pub use tls::{Tls, TlsPaths, verify_client_certificate};
pub use write_coalescing::WriteCoalescer;

#[doc(inline)]
pub use crate::{
    api::Limits as ApiLimits,
    feed::Limits as FeedLimits,
    store::{Connector, Limits as StoreLimits, OpenError, ReadLimits, Retention},
};

use std::{io, net::SocketAddr, num::NonZeroUsize, pin::pin, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::{error, info, warn};

use self::{connection::Serving, connections::Connections, workers::Workers};
use crate::{
    api,
    auth::Authenticator,
    feed::Feed,
    proto,
    store::{Store, StoreTasks, Supervisor, TaskEnded},
};

/// The pause after a connection could not be accepted, for want of file descriptors for
/// example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the log says that connections are refused.
const REFUSED_INTERVAL: Duration = Duration::from_secs(60);

/// The name in health checks that says whether the process lives: it does not follow the
/// database, so a probe that restarts processes by it leaves them alone when the database is
/// unavailable.
const LIVENESS: &str = "liveness";

/// The settings of the server.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Limits of the API.
    pub api: ApiLimits,
    /// Limits of the store.
    pub store: StoreLimits,
    /// Limits of the feed.
    pub feed: FeedLimits,
    /// Threads that serve the connections.
    pub workers: NonZeroUsize,
    /// Limits of client connections.
    pub connections: ConnectionLimits,
    /// Whether to migrate the database, or only to check it.
    pub migrate: bool,
    /// How long requests in progress may take to end after shutdown has begun.
    pub drain_timeout: Duration,
}

/// Why the server ended without a shutdown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The descriptors of the API cannot be read.
    #[error("cannot read the descriptors of the API: {0}")]
    Descriptors(#[from] api::InvalidDescriptors),
    /// The address of the listener cannot be read.
    #[error("cannot read the address of the listener: {0}")]
    Listener(#[source] io::Error),
    /// The threads for the connections cannot be started.
    #[error("cannot start the threads that serve connections: {0}")]
    Workers(#[source] io::Error),
    /// A task without which there is no service has ended.
    #[error(transparent)]
    TaskEnded(#[from] TaskEnded),
}

/// Serves on `listener` until `shutdown` is cancelled, then drains. `ready` is called with
/// the address once the database is available and requests are served; until then every
/// request fails with UNAVAILABLE.
///
/// Connections are served by threads of their own. The tasks that they share (the writer, the
/// feed, accepting) run on the thread that calls this, which should do nothing else.
///
/// # Errors
/// [`Error`]: errors that retrying does not fix.
pub async fn run(
    listener: TcpListener,
    connector: Connector,
    settings: Settings,
    security: Security,
    shutdown: CancellationToken,
    ready: impl FnOnce(SocketAddr) + Send,
) -> Result<(), Error> {
    let supervisor = Supervisor::default();
    let settings = (settings, security);
    run_under(&supervisor, listener, connector, settings, shutdown, ready).await
}

pub(crate) async fn run_under(
    supervisor: &Supervisor,
    listener: TcpListener,
    connector: Connector,
    (settings, security): (Settings, Security),
    shutdown: CancellationToken,
    ready: impl FnOnce(SocketAddr) + Send,
) -> Result<(), Error> {
    let address = listener.local_addr().map_err(Error::Listener)?;
    let workers = Workers::start(settings.workers).map_err(Error::Workers)?;
    // What ends from then on is meant to.
    let draining = supervisor.stopping();
    let (store, following, store_tasks) =
        Store::new(connector, settings.store, &workers.handles(), supervisor);
    // The tracker owns the accept loop, the connections, the feed's follower and the health
    // task.
    let tasks = TaskTracker::new();
    let feed = Feed::start(
        store.clone(),
        following,
        settings.feed,
        &tasks,
        draining.clone(),
        supervisor,
    );
    let availability = store.availability();
    let (access, tls) = security.start(supervisor, &tasks);
    let authenticator = access.authenticator.clone();
    let (api, health, responses) = api::api(store, feed, settings.api, access, draining.clone())?;
    let responses = responses.watch_over(draining.clone());
    supervisor.essential(&tasks, "unread responses", responses);
    let leaving = CancellationToken::new();
    let (reported, not_serving) = oneshot::channel();
    let health = report_health(
        health,
        availability,
        authenticator,
        leaving.clone(),
        reported,
        draining.clone(),
    );
    supervisor.essential(&tasks, "health checks", health);
    let serving = Serving {
        api,
        tls,
        limits: settings.connections,
        misdirected: Arc::default(),
        draining: draining.clone(),
    };
    let share = settings.api.connection_share();
    let accept = accept(listener, serving, workers.clone(), share, tasks.clone());
    supervisor.essential(&tasks, "accepting connections", accept);
    let served = async {
        store_tasks.open(settings.migrate).await?;
        ready(address);
        shutdown.cancelled().await;
        Ok(())
    };
    let ended = tokio::select! {
        ended = served => ended,
        () = shutdown.cancelled() => Ok(()),
        task = supervisor.ended() => Err(Error::from(task)),
    };
    // Health checks say so first, so that health watches do before their connections end. An
    // error means that nothing reports health any more.
    leaving.cancel();
    let _ = not_serving.await;
    drain(tasks, store_tasks, draining, settings.drain_timeout).await;
    workers.stop().await;
    ended
}

/// Shuts down in order: refuses new requests, waits for those in progress, then for the work
/// that they have left to the store. After the timeout it no longer waits.
async fn drain(
    tasks: TaskTracker,
    store_tasks: StoreTasks,
    draining: CancellationToken,
    timeout: Duration,
) {
    info!("draining");
    let deadline = Instant::now() + timeout;
    draining.cancel();
    tasks.close();
    let ended = timeout_at(deadline, async {
        tasks.wait().await;
        store_tasks.finish().await;
    });
    if ended.await.is_err() {
        warn!("requests were still in progress at the end of the drain timeout");
    }
}

/// Reports to health checks whether requests can be served. When the server is leaving, they
/// cannot: then `reported` is told.
async fn report_health(
    health: HealthReporter,
    mut availability: watch::Receiver<bool>,
    authenticator: Option<Arc<Authenticator>>,
    leaving: CancellationToken,
    reported: oneshot::Sender<()>,
    draining: CancellationToken,
) {
    let alive = ServingStatus::Serving;
    health.set_service_status(LIVENESS, alive).await;
    // Until callers can be told apart, nothing is served.
    let mut is_ready = authenticator.is_none();
    let ready = async {
        if let Some(authenticator) = &authenticator {
            authenticator.ready().await;
        }
    };
    let mut ready = pin!(ready);
    loop {
        let is_leaving = leaving.is_cancelled();
        let serving = *availability.borrow_and_update() && is_ready && !is_leaving;
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        health.set_service_status("", status).await;
        health.set_service_status(proto::SERVICE_NAME, status).await;
        if is_leaving {
            // Nobody may wait for it.
            let _ = reported.send(());
            draining.cancelled().await;
            return;
        }
        tokio::select! {
            () = leaving.cancelled() => {}
            () = ready.as_mut(), if !is_ready => is_ready = true,
            changed = availability.changed() => if changed.is_err() { return },
        }
    }
}

/// Whether the socket itself is no longer fit to accept connections.
fn is_lasting(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
    )
}

async fn accept(
    listener: TcpListener,
    serving: Serving,
    workers: Workers,
    request_share: usize,
    tasks: TaskTracker,
) {
    let (limits, draining) = (serving.limits, serving.draining.clone());
    let connections = Connections::new(limits.max, request_share);
    let mut refused_at: Option<Instant> = None;
    loop {
        let next = async {
            connections.has_room().await;
            listener.accept().await
        };
        let accepted = tokio::select! {
            () = draining.cancelled() => return,
            accepted = next => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_lasting(&error) => {
                error!(%error, "the socket accepts no more connections");
                return;
            }
            Err(error) => {
                // A client that has gone away does not matter; a lack of file descriptors
                // ends when connections close.
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let peer = peer.ip().to_canonical();
        let Some(place) = connections.admit(peer, draining.child_token()) else {
            if refused_at.is_none_or(|at| at.elapsed() >= REFUSED_INTERVAL) {
                refused_at = Some(Instant::now());
                warn!(%peer, limit = limits.max, "too many connections: new ones are closed");
            }
            continue;
        };
        // The socket must be registered with the worker's runtime, not with this one.
        let Ok(stream) = stream.into_std() else {
            continue;
        };
        let serve = connection::serve(stream, place, serving.clone());
        workers.spawn(tasks.track_future(serve));
    }
}
