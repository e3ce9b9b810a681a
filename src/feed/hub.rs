//! What the follower and the cursors share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    Entry,
    ring::Ring,
    shared_batch::LatestBatch,
    subscriptions::{Subscriptions, WatcherQueue},
};
use crate::{
    domain::{ChangeKind, Filter, Timestamp},
    store::Position,
};

/// How far the feed has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct FeedHead {
    /// The last entry.
    pub(super) position: Position,
    /// The database's clock: all that was committed before is at or before it.
    pub(super) read_time: Timestamp,
    /// When we learned that, by our own clock; `None`: not yet.
    pub(super) confirmed_at: Option<Instant>,
    /// Counts the logs that were followed: positions of an earlier one are void.
    pub(super) log_count: u64,
}

/// The feed's memory: written by the follower alone, read by all cursors.
#[derive(Debug)]
pub(super) struct Hub {
    state: RwLock<HubState>,
    head: watch::Sender<FeedHead>,
    latest: LatestBatch,
    /// How often the head is to be confirmed, and for how many.
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
            intervals: Mutex::default(),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HubState> {
        // Nothing in it can panic half-way.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HubState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn head(&self) -> FeedHead {
        *self.head.borrow()
    }

    /// What was delivered last to who scans.
    pub(super) fn latest(&self) -> &LatestBatch {
        &self.latest
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<FeedHead> {
        self.head.subscribe()
    }

    /// Adds what follows the head. All of it happens under one lock: whoever
    /// registers sees either the old head and gets all of this, or the new head.
    pub(super) fn append(&self, entries: Vec<Arc<Entry>>, read_time: Timestamp) {
        let mut state = self.write();
        let mut position = None;
        for entry in entries {
            let change = entry.change();
            if change.kind == Some(ChangeKind::Purged) {
                state.ring.erase(change.uid);
                state.subscriptions.erase(change.uid);
                self.latest.void();
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

    /// Adds entries although there are more behind them.
    pub(super) fn append_part(&self, entries: Vec<Arc<Entry>>) {
        let time = entries.last().map(|last| last.change().changed_at);
        self.append(entries, time.unwrap_or(Timestamp::MIN));
    }

    /// The head is where it was, as of `read_time`; nobody needs to wake.
    pub(super) fn confirm(&self, read_time: Timestamp) {
        self.head.send_if_modified(|head| {
            head.read_time = head.read_time.max(read_time);
            head.confirmed_at = Some(Instant::now());
            false
        });
    }

    /// Starts anew at the head of another log.
    pub(super) fn restart(&self, position: Position, read_time: Timestamp) {
        let mut state = self.write();
        state.ring.restart(position);
        self.latest.void();
        self.head.send_modify(|head| {
            head.position = position;
            head.read_time = read_time;
            head.confirmed_at = Some(Instant::now());
            head.log_count += 1;
        });
        state.subscriptions.wake();
    }

    /// Whether the position is one of the entries in memory, or the head.
    pub(super) fn holds(&self, position: Position) -> bool {
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

    /// Registers a queue; answers the head from which on it is filled.
    pub(super) fn register(&self, filter: &Filter, queue: &Arc<WatcherQueue>) -> FeedHead {
        let mut state = self.write();
        state.subscriptions.insert(filter, queue);
        self.head()
    }

    /// Empties a queue that overflowed; answers the head from which on it is
    /// filled again.
    pub(super) fn rearm(&self, queue: &WatcherQueue) -> FeedHead {
        let state = self.write();
        queue.clear();
        let head = self.head();
        drop(state);
        head
    }

    pub(super) fn unregister(&self, filter: &Filter, queue: &Arc<WatcherQueue>) {
        self.write().subscriptions.remove(filter, queue);
    }

    /// Somebody wants the head confirmed this often.
    pub(super) fn add_interval(&self, interval: Duration) {
        let mut intervals = self
            .intervals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *intervals.entry(interval).or_default() += 1;
    }

    /// They no longer do.
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

    /// The shortest interval that anybody wants.
    pub(super) fn shortest_interval(&self) -> Option<Duration> {
        let intervals = self
            .intervals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        intervals.keys().next().copied()
    }
}
