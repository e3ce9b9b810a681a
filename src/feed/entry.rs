//! One change of the log in memory.

use bytes::Bytes;

use super::encoded::Encoded;
use crate::{
    domain::{Change, Revision},
    store::{self, Position},
};

/// One change of the log, decoded once and encoded once for all watchers.
#[derive(Debug)]
pub struct Entry {
    change: Change,
    stamp: i64,
    size: usize,
    encoded: Encoded,
}

impl From<store::LogEntry> for Entry {
    fn from(store::LogEntry { change, stamp }: store::LogEntry) -> Self {
        Self::new(change, stamp)
    }
}

impl Entry {
    /// The change, committed in the batch with this stamp.
    pub(super) fn new(change: Change, stamp: i64) -> Self {
        let states = [&change.before, &change.after];
        let states: usize = states.into_iter().flatten().map(|call| call.size()).sum();
        Self {
            // The encoded forms are about as large as the states.
            size: size_of::<Self>() + 2 * states,
            change,
            stamp,
            encoded: Encoded::default(),
        }
    }

    /// The change.
    #[must_use]
    pub fn change(&self) -> &Change {
        &self.change
    }

    /// The position in the log.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            revision: self.change.revision,
            stamp: self.stamp,
        }
    }

    /// The encoded form of the change, with or without the state before. It is made once, by
    /// the first watcher that needs it.
    pub fn encoded(&self, with_previous: bool, encode: impl FnOnce(&Change) -> Bytes) -> &Bytes {
        self.encoded.get(with_previous, || encode(&self.change))
    }

    /// The approximate size in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn revision(&self) -> Revision {
        self.change.revision
    }

    /// The entry without the content of its call, which has been purged.
    pub(super) fn erased(&self) -> Self {
        Self::new(self.change.erased(), self.stamp)
    }
}
