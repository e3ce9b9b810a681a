//! What gets connections when PostgreSQL has none left.
//!
//! Writes, look-ups, the follower of the log and the upkeep come first: while one of them
//! waits for a connection, all sessions of other pools are closed as soon as they are idle, and
//! nothing else makes a new one.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::watch;

/// Closes what is idle; false once there is nothing to close any more.
type CloseIdle = Box<dyn Fn() -> bool + Send + Sync>;

/// See the module.
#[derive(Default)]
pub(in crate::store) struct Slots {
    /// The connections that this process may have at once.
    wanted: AtomicUsize,
    /// How many of those that come first wait.
    waiting: watch::Sender<usize>,
    idle: Mutex<Vec<CloseIdle>>,
}

impl Slots {
    /// Adds to the connections that this process may have at once.
    pub(in crate::store) fn add_wanted(&self, connections: usize) {
        self.wanted.fetch_add(connections, Ordering::Relaxed);
    }

    pub(super) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Relaxed)
    }

    /// What gives way.
    pub(super) fn on_shortage(&self, close_idle: CloseIdle) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(close_idle);
    }

    pub(super) fn close_idle(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|close_idle| close_idle());
    }

    /// Something that comes first waits, until this is dropped.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.send_modify(|waiting| *waiting += 1);
        Waiting(self)
    }

    /// Whether something that comes first waits.
    pub(super) fn are_short(&self) -> bool {
        *self.waiting.borrow() > 0
    }

    /// Returns when something that comes first waits.
    pub(in crate::store) async fn shortage(&self) {
        // The sender is ours.
        let _ = self.waiting.subscribe().wait_for(|count| *count > 0).await;
    }
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Slots")
            .field("wanted", &self.wanted)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

pub(super) struct Waiting<'a>(&'a Slots);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|waiting| *waiting -= 1);
    }
}
