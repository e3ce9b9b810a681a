//! What each thread of callers has of its own: a reader, and connections for lists
//! and counts. Who asks, who fetches and who is answered then run on one thread, and
//! none of them waits for another one to wake.

use std::sync::Arc;

use tokio::runtime::{Handle, Id};
use tokio_util::task::TaskTracker;

use super::{lists::Lists, lookups::Reader, statistics::Counter};
use crate::store::{
    Limits,
    database::{Availability, Connector, Pool, Role},
};

/// What one thread has.
pub(crate) struct Local {
    thread: Id,
    pub(crate) reader: Reader,
    pub(crate) lists: Lists,
    pub(crate) counter: Counter,
}

/// What all threads have. Clones share it.
#[derive(Clone)]
pub(crate) struct Locals(Arc<[Local]>);

impl Locals {
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
        let local = |caller: &Handle| {
            let lists = pool(Role::List);
            Local {
                thread: caller.id(),
                reader: Reader::start(connector, availability, limits.read_queue, tasks, caller),
                lists: Lists::new(
                    lists.clone(),
                    pool(Role::PlainList),
                    limits.planned_once_from,
                ),
                counter: Counter::new(lists),
            }
        };
        Self(callers.iter().map(local).collect())
    }

    /// What the calling thread has; that of any other for a caller from elsewhere.
    pub(crate) fn here(&self) -> &Local {
        let here = Handle::current().id();
        let own = self.0.iter().find(|local| local.thread == here);
        own.unwrap_or(&self.0[0])
    }
}
