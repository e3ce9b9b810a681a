//! Who wants which changes: the queues of those whose filter names calls,
//! staff or clients, so that a change costs those who want it and not all who
//! watch.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::Entry;
use crate::domain::{Call, Filter, Identifier, Uuid};

/// What a queue holds at most; beyond that its owner reads the ring or the log.
const MAX_ENTRIES: usize = 1024;
const MAX_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Uid(Uuid),
    Staff(Identifier),
    Client(Identifier),
}

/// The changes that one watcher may want, and has not taken yet.
#[derive(Debug, Default)]
pub(super) struct WatcherQueue {
    contents: Mutex<Contents>,
    /// There is something new.
    pub(super) filled: Notify,
}

#[derive(Debug, Default)]
struct Contents {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// Something was left out.
    overflowed: bool,
}

impl WatcherQueue {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        // Its contents are sound at every point where a panic could strike.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is there, at most `limit`; `None` when something was left out
    /// since the last [`Self::clear`].
    pub(super) fn take(&self, limit: usize) -> Option<Vec<Arc<Entry>>> {
        let mut contents = self.lock();
        if contents.overflowed {
            return None;
        }
        let count = contents.entries.len().min(limit);
        let taken: Vec<_> = contents.entries.drain(..count).collect();
        contents.bytes -= taken.iter().map(|entry| entry.size()).sum::<usize>();
        Some(taken)
    }

    pub(super) fn is_empty(&self) -> bool {
        let contents = self.lock();
        contents.entries.is_empty() && !contents.overflowed
    }

    pub(super) fn clear(&self) {
        *self.lock() = Contents::default();
    }

    fn push(&self, entry: &Arc<Entry>) {
        let mut contents = self.lock();
        let again = contents
            .entries
            .back()
            .is_some_and(|last| last.revision() == entry.revision());
        if contents.overflowed || again {
            return;
        }
        contents.bytes += entry.size();
        contents.entries.push_back(Arc::clone(entry));
        let is_small = contents.entries.len() == 1 || contents.bytes <= MAX_BYTES;
        if contents.entries.len() > MAX_ENTRIES || !is_small {
            *contents = Contents {
                overflowed: true,
                ..Contents::default()
            };
        }
        drop(contents);
        self.filled.notify_one();
    }

    fn erase(&self, uid: Uuid) {
        let mut contents = self.lock();
        let mut bytes = contents.bytes;
        for entry in contents
            .entries
            .iter_mut()
            .filter(|entry| entry.change().uid == uid)
        {
            let erased = entry.erased();
            bytes = bytes + erased.size() - entry.size();
            *entry = Arc::new(erased);
        }
        contents.bytes = bytes;
    }
}

/// The queues, by what their owners' filters name.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    by_key: HashMap<Key, Vec<Arc<WatcherQueue>>>,
}

impl Subscriptions {
    /// Whether a filter names anything that the index knows.
    pub(super) fn takes(filter: &Filter) -> bool {
        !keys(filter).is_empty()
    }

    pub(super) fn insert(&mut self, filter: &Filter, queue: &Arc<WatcherQueue>) {
        for key in keys(filter) {
            self.by_key.entry(key).or_default().push(Arc::clone(queue));
        }
    }

    pub(super) fn remove(&mut self, filter: &Filter, queue: &Arc<WatcherQueue>) {
        for key in keys(filter) {
            if let Some(queues) = self.by_key.get_mut(&key) {
                queues.retain(|one| !Arc::ptr_eq(one, queue));
                if queues.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
    }

    /// Puts the entry where somebody may want it.
    pub(super) fn push(&self, entry: &Arc<Entry>) {
        let change = entry.change();
        if change.after.is_none() {
            // Who wanted the call cannot be told any more, so all are told.
            self.each(|queue| queue.push(entry));
            return;
        }
        self.push_to(&Key::Uid(change.uid), entry);
        // A queue takes an entry once, however often it is offered.
        for Call { attributes, .. } in [&change.before, &change.after]
            .into_iter()
            .flatten()
            .map(Arc::as_ref)
        {
            if let Some(staff) = &attributes.staff_uid {
                self.push_to(&Key::Staff(staff.clone()), entry);
            }
            if let Some(client) = &attributes.client_uid {
                self.push_to(&Key::Client(client.clone()), entry);
            }
        }
    }

    /// Blanks what waits of a purged call.
    pub(super) fn erase(&self, uid: Uuid) {
        self.each(|queue| queue.erase(uid));
    }

    /// Wakes everybody.
    pub(super) fn wake(&self) {
        self.each(|queue| queue.filled.notify_one());
    }

    fn push_to(&self, key: &Key, entry: &Arc<Entry>) {
        for queue in self.by_key.get(key).into_iter().flatten() {
            queue.push(entry);
        }
    }

    fn each(&self, act: impl Fn(&WatcherQueue)) {
        for queue in self.by_key.values().flatten() {
            act(queue);
        }
    }
}

/// What of a filter the index can go by: the narrowest of what it names.
fn keys(filter: &Filter) -> Vec<Key> {
    if !filter.uids.is_empty() {
        filter.uids.iter().copied().map(Key::Uid).collect()
    } else if !filter.staff_uids.is_empty() {
        filter.staff_uids.iter().cloned().map(Key::Staff).collect()
    } else {
        filter
            .client_uids
            .iter()
            .cloned()
            .map(Key::Client)
            .collect()
    }
}
