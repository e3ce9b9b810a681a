//! The change feed: every change of the log, in order, for watchers. Recent changes are in
//! memory.
//!
//! - [`Feed`] is what the layers above use; there is one per process
//! - `follower` keeps it at the head of the log: batches of this process come from memory,
//!   everything else from the log
//! - `hub` is what the follower and the cursors share: a `ring` of the last entries, the head,
//!   and the `subscriptions`, queues of watchers whose view names calls, staff or clients
//! - [`Cursor`] is one watcher's position; [`LogReader`] reads on from any position, from the
//!   ring or the log; a [`SharedBatch`] is what comes next, shared by watchers at the same
//!   position with the same view
//! - `purges` are the calls purged lately, to leave them out of pages that were read before;
//!   `hub` erases what the feed holds of them
//! - [`Snapshot`] reads the calls as they all were at one revision; [`ReadAhead`] reads a page
//!   of it in advance; a [`QueuedSnapshot`] waits in line first (`snapshot_queue`)
//!
//! It deliberately knows nothing of messages, except that entries and batches are encoded once
//! for all watchers, and nothing of rates or permissions.

mod cursor;
mod encoded;
mod entry;
mod follower;
mod hub;
mod log_reader;
mod purges;
mod read_ahead;
mod ring;
mod shared_batch;
mod snapshot;
mod snapshot_queue;
mod subscriptions;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use cursor::{Cursor, Point};
pub(crate) use entry::Entry;
pub(crate) use log_reader::LogReader;
pub(crate) use purges::UnsentCalls;
pub(crate) use read_ahead::ReadAhead;
pub(crate) use shared_batch::SharedBatch;
pub(crate) use snapshot::{Snapshot, SnapshotError};
pub(crate) use snapshot_queue::QueuedSnapshot;

use self::{follower::Follower, hub::Hub, snapshot_queue::SnapshotQueue};
use crate::{
    domain::{Revision, Timestamp, View},
    store::{Following, LogError, Position, Store, Supervisor, Tail},
};

/// How large the feed may grow.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of recent changes in memory, approximately.
    pub memory_bytes: usize,
    /// Snapshots that are read at once; more wait in line.
    pub max_snapshots: usize,
}

/// The feed. Clones share it.
#[derive(Clone)]
pub struct Feed {
    hub: Arc<Hub>,
    store: Store,
    tasks: TaskTracker,
    snapshots: SnapshotQueue,
}

impl Feed {
    /// A feed over the store, maintained by a task that `tasks` owns and `stop` ends. If it ends
    /// before, watches would be silent for ever: the process ends too.
    #[must_use]
    pub fn start(
        store: Store,
        following: Following,
        limits: Limits,
        tasks: &TaskTracker,
        stop: CancellationToken,
        supervisor: &Supervisor,
    ) -> Self {
        let hub = Arc::new(Hub::new(limits.memory_bytes));
        let follower = Follower::new(Arc::clone(&hub), following, stop);
        supervisor.essential(tasks, "the feed", follower.run());
        Self {
            hub,
            store,
            tasks: tasks.clone(),
            snapshots: SnapshotQueue::new(limits.max_snapshots),
        }
    }

    /// Checks that a client can resume from this position.
    ///
    /// # Errors
    /// [`LogError`]: it cannot.
    pub async fn check(&self, position: Position, deadline: Instant) -> Result<(), LogError> {
        if self.hub.contains(position) {
            return Ok(());
        }
        let page = self.store.log().after(position, 0, None, deadline);
        page.await?;
        Ok(())
    }

    /// A cursor behind `position`, which was checked after the log had reached `tail`. While
    /// the cursor lives, the head is confirmed at least once per `interval`.
    #[must_use]
    pub fn cursor(
        &self,
        view: Arc<View>,
        position: Position,
        tail: &Tail,
        interval: Duration,
    ) -> Cursor {
        let reader = self.log_reader(position, tail.head);
        let read_time = if position.revision >= tail.head.revision {
            tail.read_time
        } else {
            Timestamp::MIN
        };
        let hub = Arc::clone(&self.hub);
        Cursor::new(hub, reader, view, read_time, tail.head.revision, interval)
    }

    /// A reader from `position`, which was checked after the log had reached `head`. It does
    /// not return the content of calls that were purged up to there.
    #[must_use]
    pub fn log_reader(&self, position: Position, head: Position) -> LogReader {
        let (hub, log) = (Arc::clone(&self.hub), self.store.log().clone());
        LogReader::new(hub, log, position, head.revision)
    }

    /// The calls in the view, as they are now, at `min_revision` or later,
    /// read in pages of at most `page_len`.
    fn snapshot(&self, view: Arc<View>, min_revision: Revision, page_len: usize) -> Snapshot {
        Snapshot::new(self.clone(), view, min_revision, page_len)
    }

    /// A snapshot of the calls in the view that waits in line for its turn.
    #[must_use]
    pub fn queued_snapshot(&self, view: Arc<View>, page_len: usize) -> QueuedSnapshot {
        let snapshot = self.snapshot(view, 0, page_len);
        let (queued, task) = QueuedSnapshot::new(snapshot, self.snapshots.clone());
        self.tasks.spawn(task);
        queued
    }

    /// A snapshot of which one page is read ahead.
    #[must_use]
    pub fn snapshot_ahead(
        &self,
        view: Arc<View>,
        min_revision: Revision,
        page_len: usize,
    ) -> ReadAhead {
        let (ahead, task) = ReadAhead::new(self.snapshot(view, min_revision, page_len));
        self.tasks.spawn(task);
        ahead
    }
}
