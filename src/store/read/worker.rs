//! What each thread of callers has of its own: a reader, and connections for lists
//! and counts. Who asks, who fetches and who is answered then run on one thread, and
//! none of them waits for another one to wake.

use std::sync::Arc;

use tokio::runtime::{Handle, Id};
use tokio_util::task::TaskTracker;

use super::{lists::Lists, lookups::Lookups, statistics::Statistics};
use crate::store::{
    Limits,
    database::{Availability, Connector, Pool, Role},
};

/// What one thread has.
pub(crate) struct ReadWorker {
    thread: Id,
    pub(crate) lookups: Lookups,
    pub(crate) lists: Lists,
    pub(crate) statistics: Statistics,
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
        limits: Limits,
        tasks: &TaskTracker,
    ) -> Self {
        let connections = limits.list_connections.div_ceil(callers.len().max(1));
        let pool = |role| Pool::new(connector, availability, role, connections);
        let worker = |caller: &Handle| {
            let lists = pool(Role::List);
            ReadWorker {
                thread: caller.id(),
                lookups: Lookups::start(connector, availability, limits.read_queue, tasks, caller),
                lists: Lists::new(
                    lists.clone(),
                    pool(Role::PlainList),
                    limits.planned_once_from,
                ),
                statistics: Statistics::new(lists),
            }
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
