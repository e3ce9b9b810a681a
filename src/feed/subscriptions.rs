//! The queues of watchers whose view names calls, staff or clients, by its filter or because the
//! caller is narrowed to them. They are indexed by those names, so that the cost of a change
//! depends on the watchers that may receive it, not on all.
//!
//! A queue may receive changes that its view does not match, but misses none that it does,
//! unless it overflows, which its owner sees.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::Entry;
use crate::domain::{Call, Identifier, Narrowing, Uuid, View, narrowing};

/// The most that a queue holds; beyond that its owner reads the ring or the log.
const MAX_ENTRIES: usize = 1024;
const MAX_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Uid(Uuid),
    Staff(Identifier),
    HandledBy(Identifier),
    Client(Identifier),
    /// A call that nobody has answered or handled yet.
    Unassigned,
}

/// The changes that may match one watcher's view, and are not dequeued yet.
#[derive(Debug, Default)]
pub(super) struct WatcherQueue {
    contents: Mutex<Contents>,
    /// Notified when an entry was added, or the queue overflowed.
    pub(super) filled: Notify,
}

#[derive(Debug, Default)]
struct Contents {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// Entries were dropped since the last clear.
    overflowed: bool,
}

impl WatcherQueue {
    fn lock(&self) -> MutexGuard<'_, Contents> {
        // The contents are consistent wherever a panic could happen.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes and returns the first entries, at most `limit`; `None` if the queue has
    /// overflowed since the last [`Self::clear`].
    pub(super) fn dequeue(&self, limit: usize) -> Option<Vec<Arc<Entry>>> {
        let mut contents = self.lock();
        if contents.overflowed {
            return None;
        }
        let count = contents.entries.len().min(limit);
        let entries: Vec<_> = contents.entries.drain(..count).collect();
        contents.bytes -= entries.iter().map(|entry| entry.size()).sum::<usize>();
        Some(entries)
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

/// The queues, by the calls, staff and clients that their views name.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    by_key: HashMap<Key, Vec<Arc<WatcherQueue>>>,
}

impl Subscriptions {
    /// Whether the view names calls, staff or clients.
    pub(super) fn supports(view: &View) -> bool {
        !keys(view).is_empty()
    }

    pub(super) fn insert(&mut self, view: &View, queue: &Arc<WatcherQueue>) {
        for key in keys(view) {
            self.by_key.entry(key).or_default().push(Arc::clone(queue));
        }
    }

    pub(super) fn remove(&mut self, view: &View, queue: &Arc<WatcherQueue>) {
        for key in keys(view) {
            if let Some(queues) = self.by_key.get_mut(&key) {
                queues.retain(|one| !Arc::ptr_eq(one, queue));
                if queues.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
    }

    /// Puts the entry into all queues whose view may match it.
    pub(super) fn push(&self, entry: &Arc<Entry>) {
        let change = entry.change();
        if change.after.is_none() {
            // The call was purged, so nothing says whose views it matched: all queues receive
            // the entry.
            self.each(|queue| queue.push(entry));
            return;
        }
        self.push_to(&Key::Uid(change.uid), entry);
        // A queue that is found by several keys accepts the entry only once.
        for Call { attributes, .. } in [&change.before, &change.after]
            .into_iter()
            .flatten()
            .map(Arc::as_ref)
        {
            if let Some(staff) = &attributes.staff_uid {
                self.push_to(&Key::Staff(staff.clone()), entry);
            }
            if let Some(staff) = &attributes.handled_by_staff_uid {
                self.push_to(&Key::HandledBy(staff.clone()), entry);
            }
            if let Some(client) = &attributes.client_uid {
                self.push_to(&Key::Client(client.clone()), entry);
            }
            if narrowing::is_unassigned(attributes) {
                self.push_to(&Key::Unassigned, entry);
            }
        }
    }

    /// Erases the content of a purged call from all queues.
    pub(super) fn erase(&self, uid: Uuid) {
        self.each(|queue| queue.erase(uid));
    }

    /// Wakes all watchers that have a queue.
    pub(super) fn wake_all(&self) {
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

/// The keys of a view: the most selective of the fields that its filter names, or else the names
/// that the caller is narrowed to.
fn keys(view: &View) -> Vec<Key> {
    let filter = &view.filter;
    let named =
        |uids: &[Identifier], key: fn(Identifier) -> Key| uids.iter().cloned().map(key).collect();
    if !filter.uids.is_empty() {
        filter.uids.iter().copied().map(Key::Uid).collect()
    } else if !filter.staff_uids.is_empty() {
        named(&filter.staff_uids, Key::Staff)
    } else if !filter.handled_by_staff_uids.is_empty() {
        named(&filter.handled_by_staff_uids, Key::HandledBy)
    } else if !filter.client_uids.is_empty() {
        named(&filter.client_uids, Key::Client)
    } else {
        view.narrowing.as_deref().map(keys_of).unwrap_or_default()
    }
}

fn keys_of(narrowing: &Narrowing) -> Vec<Key> {
    match (narrowing.client_uid(), narrowing.staff()) {
        (Some(client_uid), _) => vec![Key::Client(client_uid.clone())],
        (None, None) => Vec::new(),
        (None, Some(staff)) => {
            let uid = &staff.staff_uid;
            let mut keys = vec![Key::Staff(uid.clone()), Key::HandledBy(uid.clone())];
            keys.extend(staff.unassigned.then_some(Key::Unassigned));
            keys
        }
    }
}
