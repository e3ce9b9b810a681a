//! The open connections, and which of them make room for another when there are too many.
//!
//! No address has a fixed share, because behind a proxy all clients have one. Only when every
//! place is taken do addresses matter: the one with the most connections makes room. So a
//! client that opens any number of connections displaces its own, and nobody else's.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::api::Connection;

/// Connections that are being closed to make room may be this part of the limit, besides it.
const CLOSING_PART: usize = 8;

/// The open connections of the server.
pub(super) struct Connections {
    open: Mutex<Open>,
    limit: usize,
    /// Requests in progress that each connection may have.
    request_share: usize,
    /// Notified when a connection has closed.
    closed: Notify,
    started_at: Instant,
}

#[derive(Default)]
struct Open {
    connections: HashMap<u64, Arc<Activity>>,
    by_peer: HashMap<IpAddr, usize>,
    /// How many of them are being closed to make room.
    closing: usize,
    next_id: u64,
}

/// What is known of a connection.
pub(super) struct Activity {
    pub(super) connection: Arc<Connection>,
    /// Tracks its HTTP/2 streams.
    pub(super) streams: TaskTracker,
    /// Whether the handshake is complete.
    is_established: AtomicBool,
    /// When its last stream began, or it was accepted, in microseconds since the server
    /// started.
    last_used: AtomicU64,
    makes_room: AtomicBool,
}

/// A connection's place among the open ones, which is free when this is dropped.
pub(super) struct Place {
    pub(super) activity: Arc<Activity>,
    id: u64,
    connections: Arc<Connections>,
}

impl Connections {
    pub(super) fn new(limit: usize, request_share: usize) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            limit,
            request_share,
            closed: Notify::new(),
            started_at: Instant::now(),
        })
    }

    /// Waits until another socket may be accepted.
    pub(super) async fn has_room(&self) {
        let most = self.limit + self.limit.div_ceil(CLOSING_PART);
        while self.lock().connections.len() >= most {
            // Only the accept loop waits here, and a notification before this is kept.
            self.closed.notified().await;
        }
    }

    /// A place for a connection from `peer`, whose streams end when `ending` is cancelled.
    /// When all places are taken, another connection is closed for it. `None` if the newcomer
    /// has to go, because its address has the most and all of them are in use.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        ending: CancellationToken,
    ) -> Option<Place> {
        let mut open = self.lock();
        if open.connections.len() - open.closing >= self.limit {
            let displaced = open.least_entitled(peer)?;
            displaced.makes_room.store(true, Ordering::Relaxed);
            displaced.connection.ending().cancel();
            open.closing += 1;
        }
        let activity = Arc::new(Activity {
            connection: Arc::new(Connection::new(peer, ending, self.request_share)),
            streams: TaskTracker::new(),
            is_established: AtomicBool::new(false),
            last_used: AtomicU64::new(self.now()),
            makes_room: AtomicBool::new(false),
        });
        let id = open.next_id;
        open.next_id += 1;
        open.connections.insert(id, Arc::clone(&activity));
        *open.by_peer.entry(peer).or_default() += 1;
        Some(Place {
            activity,
            id,
            connections: Arc::clone(self),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started_at.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// The connection that makes room for one from `newcomer`: of the address with the most,
    /// an idle one before one in use, an incomplete handshake before all, then the one that was
    /// used least recently. One in use goes only if its address still has at least as many as
    /// the newcomer's afterwards: else the two would displace each other for ever.
    fn least_entitled(&self, newcomer: IpAddr) -> Option<Arc<Activity>> {
        let count = |peer| self.by_peer.get(&peer).copied().unwrap_or_default();
        let least = count(newcomer) + 1;
        let candidates = self.connections.values().filter_map(|activity| {
            if activity.makes_room.load(Ordering::Relaxed) {
                return None;
            }
            let peer = activity.connection.peer();
            let count = count(peer) + usize::from(peer == newcomer);
            let is_idle = activity.streams.is_empty();
            let is_established = activity.is_established.load(Ordering::Relaxed);
            let last_used = activity.last_used.load(Ordering::Relaxed);
            let may_go = if is_idle {
                count >= least
            } else {
                count > least
            };
            may_go.then_some((
                count,
                is_idle,
                !is_established,
                u64::MAX - last_used,
                activity,
            ))
        });
        let most = candidates.max_by_key(|&(count, is_idle, is_incomplete, age, _)| {
            (count, is_idle, is_incomplete, age)
        });
        most.map(|(.., activity)| Arc::clone(activity))
    }
}

impl Activity {
    /// Whether it is being closed to make room for another.
    pub(super) fn makes_room(&self) -> bool {
        self.makes_room.load(Ordering::Relaxed)
    }
}

impl Place {
    /// The handshake is complete.
    pub(super) fn established(&self) {
        self.activity.is_established.store(true, Ordering::Relaxed);
    }

    /// A stream begins.
    pub(super) fn touch(&self) {
        let now = self.connections.now();
        self.activity.last_used.store(now, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        open.connections.remove(&self.id);
        if self.activity.makes_room() {
            open.closing -= 1;
        }
        let peer = self.activity.connection.peer();
        if let Some(count) = open.by_peer.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                open.by_peer.remove(&peer);
            }
        }
        drop(open);
        self.connections.closed.notify_one();
    }
}
