//! The process around the API: sockets, health, and graceful shutdown.
//!
//! - [`run`] puts the layers together, serves until shutdown, then drains
//! - `workers` are the threads that serve the connections; `connection` is one client's,
//!   `read_turns` limits what it reads at once, and `write_coalescing` combines its small
//!   writes
//!
//! It owns every task that it starts. It deliberately knows nothing of what the API does.

mod connection;
mod read_turns;
mod workers;
mod write_coalescing;

pub use write_coalescing::WriteCoalescer;

use std::{io, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::{info, warn};

use self::workers::Workers;
use crate::{
    api::{self, Api},
    feed::{self, Feed},
    proto,
    store::{Connector, OpenError, Store, StoreTasks},
};

/// The pause after a connection could not be accepted, for want of file descriptors for
/// example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The name in health checks that says whether the process lives: it does not follow the
/// database, so a probe that restarts processes by it leaves them alone when the database is
/// unavailable.
const LIVENESS: &str = "liveness";

/// The settings of the server.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Limits of the API.
    pub api: api::Limits,
    /// Limits of the store.
    pub store: crate::store::Limits,
    /// Limits of the feed.
    pub feed: feed::Limits,
    /// Threads that serve the connections.
    pub workers: NonZeroUsize,
    /// Concurrent connections; more wait to be accepted.
    pub max_connections: usize,
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
    shutdown: CancellationToken,
    ready: impl FnOnce(SocketAddr) + Send,
) -> Result<(), Error> {
    let address = listener.local_addr().map_err(Error::Listener)?;
    let workers = Workers::start(settings.workers).map_err(Error::Workers)?;
    let draining = CancellationToken::new();
    let (store, following, store_tasks) = Store::new(connector, settings.store, &workers.handles());
    // The tracker owns the accept loop, the connections, the feed's follower and the health
    // task.
    let tasks = TaskTracker::new();
    let feed = Feed::start(
        store.clone(),
        following,
        settings.feed,
        &tasks,
        draining.clone(),
    );
    let availability = store.availability();
    let (api, health) = api::api(store, feed, settings.api, draining.clone())?;
    tasks.spawn(report_health(health, availability, draining.clone()));
    tasks.spawn(accept(
        listener,
        api,
        workers.clone(),
        settings.max_connections,
        tasks.clone(),
        draining.clone(),
    ));
    let opened = tokio::select! {
        opened = store_tasks.open(settings.migrate) => opened,
        () = shutdown.cancelled() => Ok(()),
    };
    if opened.is_ok() && !shutdown.is_cancelled() {
        ready(address);
        shutdown.cancelled().await;
    }
    drain(tasks, store_tasks, draining, settings.drain_timeout).await;
    workers.stop().await;
    Ok(opened?)
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

/// Reports to health checks whether requests can be served.
async fn report_health(
    health: HealthReporter,
    mut availability: watch::Receiver<bool>,
    draining: CancellationToken,
) {
    let alive = ServingStatus::Serving;
    health.set_service_status(LIVENESS, alive).await;
    loop {
        let serving = *availability.borrow_and_update() && !draining.is_cancelled();
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        health.set_service_status("", status).await;
        health.set_service_status(proto::SERVICE_NAME, status).await;
        if draining.is_cancelled() {
            return;
        }
        tokio::select! {
            () = draining.cancelled() => {}
            changed = availability.changed() => if changed.is_err() { return },
        }
    }
}

async fn accept(
    listener: TcpListener,
    api: Api,
    workers: Workers,
    max_connections: usize,
    tasks: TaskTracker,
    draining: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(max_connections));
    loop {
        let next = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&permits).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = draining.cancelled() => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                // The socket must be registered with the worker's runtime, not with this one.
                let Ok(stream) = stream.into_std() else {
                    continue;
                };
                let serve = connection::serve(stream, api.clone(), tasks.clone(), draining.clone());
                let serve = async move {
                    serve.await;
                    drop(permit);
                };
                workers.spawn(tasks.track_future(serve));
            }
            Err(error) => {
                // A client that has gone away does not matter; a lack of file descriptors
                // ends when connections close.
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
