//! What the follower and the cursors share: the ring, the head, the subscriptions and the
//! latest shared batch.
//!
//! A purge erases the call's content here, as its entry is appended: from the ring, from the
//! queues, and from the latest shared batch. Readers of the log then drop what they have read
//! and not passed on.
//!
//! Invariant: the head and the contents of ring and queues change together under one lock, so
//! a watcher that registers at a head gets exactly the entries after it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    Entry,
    purges::Purges,
    ring::Ring,
    shared_batch::LatestBatch,
    subscriptions::{Subscriptions, WatcherQueue},
};
use crate::{
    domain::{ChangeKind, Timestamp, View},
    store::Position,
};

/// How far the feed has got.
#[derive(Debug, Clone, Copy)]
pub(super) struct FeedHead {
    /// The position of the last entry.
    pub(super) position: Position,
    /// By the database's clock: everything that was committed before this time is at or
    /// before the position.
    pub(super) read_time: Timestamp,
    /// When that was last confirmed, by the clock of this process; `None` until the feed has
    /// read the log.
    pub(super) confirmed_at: Option<Instant>,
    /// The number of logs that were followed. Positions in an earlier one are invalid.
    pub(super) log_count: u64,
}

/// The feed's memory: written only by the follower, read by all cursors.
#[derive(Debug)]
pub(super) struct Hub {
    state: RwLock<HubState>,
    head: watch::Sender<FeedHead>,
    latest: LatestBatch,
    purges: Arc<Purges>,
    /// The intervals at which watchers need the head confirmed, and how many watchers need
    /// each.
    intervals: Mutex<BTreeMap<Duration, usize>>,
}

#[derive(Debug)]
struct HubState {
    ring: Ring,
    subscriptions: Subscriptions,
}

impl Hub {
    pub(super) fn new(memory_bytes: usize) -> Self {
        Self {
            state: RwLock::new(HubState {
                ring: Ring::new(memory_bytes),
                subscriptions: Subscriptions::default(),
            }),
            head: watch::Sender::new(FeedHead {
                position: Position::default(),
                read_time: Timestamp::MIN,
                confirmed_at: None,
                log_count: 0,
            }),
            latest: LatestBatch::default(),
            purges: Arc::default(),
            intervals: Mutex::default(),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HubState> {
        // A panic leaves the state consistent, because no update of it can panic half-way.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HubState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn head(&self) -> FeedHead {
        *self.head.borrow()
    }

    /// The batch that was read last by a watcher without a queue.
    pub(super) fn latest(&self) -> &LatestBatch {
        &self.latest
    }

    /// The calls that were purged lately.
    pub(super) fn purges(&self) -> &Arc<Purges> {
        &self.purges
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<FeedHead> {
        self.head.subscribe()
    }

    /// Appends entries that follow the head. This happens under one lock: a watcher that
    /// registers sees either the old head and gets all these entries, or the new head.
    pub(super) fn append(&self, entries: Vec<Arc<Entry>>, read_time: Timestamp) {
        let mut state = self.write();
        let mut position = None;
        for entry in entries {
            let change = entry.change();
            if change.kind == Some(ChangeKind::Purged) {
                state.ring.erase(change.uid);
                state.subscriptions.erase(change.uid);
                self.latest.invalidate();
                self.purges.push(change.uid);
            }
            state.subscriptions.push(&entry);
            position = Some(entry.position());
            state.ring.push(entry);
        }
        self.head.send_modify(|head| {
            head.position = position.unwrap_or(head.position);
            head.read_time = head.read_time.max(read_time);
            head.confirmed_at = Some(Instant::now());
        });
        drop(state);
    }

    /// Appends entries that others are known to follow.
    pub(super) fn append_part(&self, entries: Vec<Arc<Entry>>) {
        let time = entries.last().map(|last| last.change().changed_at);
        self.append(entries, time.unwrap_or(Timestamp::MIN));
    }

    /// Confirms that the head has not moved as of `read_time`, without waking any watcher.
    pub(super) fn confirm(&self, read_time: Timestamp) {
        self.head.send_if_modified(|head| {
            head.read_time = head.read_time.max(read_time);
            head.confirmed_at = Some(Instant::now());
            false
        });
    }

    /// Starts again at the head of another log.
    pub(super) fn restart(&self, position: Position, read_time: Timestamp) {
        let mut state = self.write();
        state.ring.restart(position);
        self.latest.invalidate();
        self.head.send_modify(|head| {
            head.position = position;
            head.read_time = read_time;
            head.confirmed_at = Some(Instant::now());
            head.log_count += 1;
        });
        state.subscriptions.wake_all();
    }

    /// Whether the position is that of an entry in memory, or of the head.
    pub(super) fn contains(&self, position: Position) -> bool {
        let state = self.read();
        let head = self.head();
        let entry = state.ring.at(position.revision);
        (head.confirmed_at.is_some() && head.position == position)
            || entry.is_some_and(|entry| entry.position() == position)
    }

    /// See [`Ring::after`].
    pub(super) fn after(&self, position: Position, limit: usize) -> Option<Vec<Arc<Entry>>> {
        self.read().ring.after(position, limit)
    }

    /// Registers a queue, and returns the head after which it receives entries.
    pub(super) fn register(&self, view: &View, queue: &Arc<WatcherQueue>) -> FeedHead {
        let mut state = self.write();
        state.subscriptions.insert(view, queue);
        self.head()
    }

    /// Empties a queue that overflowed, and returns the head after which it receives entries
    /// again.
    pub(super) fn rearm(&self, queue: &WatcherQueue) -> FeedHead {
        let state = self.write();
        queue.clear();
        let head = self.head();
        drop(state);
        head
    }

    pub(super) fn unregister(&self, view: &View, queue: &Arc<WatcherQueue>) {
        self.write().subscriptions.remove(view, queue);
    }

    /// Adds a watcher that needs the head confirmed at this interval.
    pub(super) fn add_interval(&self, interval: Duration) {
        let mut intervals = self
            .intervals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *intervals.entry(interval).or_default() += 1;
    }

    /// Removes such a watcher.
    pub(super) fn remove_interval(&self, interval: Duration) {
        let mut intervals = self
            .intervals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = intervals.get_mut(&interval) {
            *count -= 1;
            if *count == 0 {
                intervals.remove(&interval);
            }
        }
    }

    /// The shortest interval that a watcher needs; `None` without watchers.
    pub(super) fn shortest_interval(&self) -> Option<Duration> {
        let intervals = self
            .intervals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        intervals.keys().next().copied()
    }
}
