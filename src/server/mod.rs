//! The process around the API: sockets, health, and an end in order.
//!
//! - [`run`] serves until it is told to stop, then drains
//! - `workers` are threads that share the connections; `connection` is one client's,
//!   and `gather` bundles its writes
//!
//! It owns every task that it starts, and is where the layers are put together.
//! It deliberately knows nothing of what the API does.

mod connection;
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

/// How long accepting pauses when the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server takes on, and how it ends.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The API's limits.
    pub api: api::Limits,
    /// The store's limits.
    pub store: crate::store::Limits,
    /// The feed's limits.
    pub feed: feed::Limits,
    /// Threads that serve the connections.
    pub workers: NonZeroUsize,
    /// Connections at once; more wait to be accepted.
    pub max_connections: usize,
    /// Whether to migrate the database, or only to check it.
    pub migrate: bool,
    /// How long requests under way may take to end, once told to stop.
    pub drain_timeout: Duration,
}

/// Why the server ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The descriptors of the API cannot be read.
    #[error("cannot read the descriptors of the API: {0}")]
    Descriptors(#[from] tonic_reflection::server::Error),
    /// The listener does not know its address.
    #[error("cannot read the address of the listener: {0}")]
    Listener(#[source] io::Error),
    /// The threads for the connections cannot be started.
    #[error("cannot start the threads that serve connections: {0}")]
    Workers(#[source] io::Error),
}

/// Serves on `listener` until `shutdown` is cancelled, then drains. `ready` is
/// called with the address once the database is there and calls are served;
/// until then everything is answered with UNAVAILABLE.
///
/// Connections are served by threads of their own. What is done once for all of them
/// (the writer, the feed, accepting) runs where this is called, best on a thread that
/// does nothing else.
///
/// # Errors
/// [`Error`]: what waiting does not mend.
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
    // Owns the accept loop, the connections, the feed's follower and the health
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

/// Ends everything in order: no new requests, then those under way, then what
/// they have given the store to do. Past the deadline, without waiting.
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

/// Tells health checks whether calls can be served.
async fn report_health(
    health: HealthReporter,
    mut availability: watch::Receiver<bool>,
    draining: CancellationToken,
) {
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
                // A worker's own scheduler has to wait for what arrives.
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
                // The client's end of it is of no interest; a lack of
                // descriptors passes when connections end.
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
