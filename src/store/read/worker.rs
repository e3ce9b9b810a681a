//! What each thread of callers has of its own: a reader, and connections for lists. The caller,
//! the reader and the connection then run on one thread, and none waits for another to wake.

use std::sync::Arc;

use tokio::runtime::{Handle, Id};

use super::{lists::Lists, lookups::Lookups};
use crate::domain::Revision;
use crate::store::{
    database::{Availability, Connector, Pool, Role},
    tasks::Tasks,
};

/// See [`ReadLimits::planned_once_from`].
pub const PLANNED_ONCE_FROM: Revision = 100_000;

/// How many reads there may be at once.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// Look-ups by uid that wait in one thread.
    pub lookup_queue: usize,
    /// Connections for lists, and as many for lists with simple filters; at least one of
    /// each for a thread.
    pub list_connections: usize,
    /// Connections for statistics, of all threads.
    pub statistics_connections: usize,
    /// How far the log must reach for lists with simple filters to be planned once and not
    /// for each page: a log of [`PLANNED_ONCE_FROM`] changes tells of a table on which the
    /// right index wins by far; a plan made while the table was next to empty might be
    /// kept while it grows.
    pub planned_once_from: Revision,
}

/// What one thread has.
pub(crate) struct ReadWorker {
    thread: Id,
    pub(crate) lookups: Lookups,
    pub(crate) lists: Lists,
}

/// What all threads have. Clones share it.
#[derive(Clone)]
pub(crate) struct ReadWorkers(Arc<[ReadWorker]>);

impl ReadWorkers {
    /// Starts the readers, which `tasks` owns, for callers on these threads, at least
    /// one. They share the connections that there may be for lists.
    pub(crate) fn start(
        callers: &[Handle],
        connector: &Connector,
        availability: &Availability,
        limits: ReadLimits,
        tasks: &Tasks,
    ) -> Self {
        let connections = limits.list_connections.div_ceil(callers.len().max(1));
        let pool = |role| Pool::new(connector, availability, role, connections);
        let worker = |caller: &Handle| ReadWorker {
            thread: caller.id(),
            lookups: Lookups::start(connector, availability, limits.lookup_queue, tasks, caller),
            lists: Lists::new(
                pool(Role::List),
                pool(Role::PlainList),
                limits.planned_once_from,
            ),
        };
        Self(callers.iter().map(worker).collect())
    }

    /// What the calling thread has; that of any other for a caller from elsewhere.
    pub(crate) fn here(&self) -> &ReadWorker {
        let here = Handle::current().id();
        let own = self.0.iter().find(|worker| worker.thread == here);
        own.unwrap_or(&self.0[0])
    }
}
