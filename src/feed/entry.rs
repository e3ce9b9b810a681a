//! One change of the log in memory.

use std::mem::size_of;

use bytes::Bytes;

use super::encoded::Encoded;
use crate::{
    domain::{Call, Change, Identifier, PhoneNumber, Revision, Summary, Url},
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
        let states: usize = states.into_iter().flatten().map(|call| size(call)).sum();
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

/// The approximate size of a call in memory, in bytes.
pub(super) fn size(call: &Call) -> usize {
    let a = &call.attributes;
    let names = [&a.staff_uid, &a.client_uid, &a.handled_by_staff_uid];
    let numbers = [&a.from_number, &a.to_number];
    let urls = [&a.recording_url, &a.external_app_url];
    let len = |text: Option<&str>| text.map_or(0, str::len);
    size_of::<Call>()
        + names
            .into_iter()
            .map(|name| len(name.as_ref().map(Identifier::as_str)))
            .sum::<usize>()
        + numbers
            .into_iter()
            .map(|one| len(one.as_ref().map(PhoneNumber::as_str)))
            .sum::<usize>()
        + urls
            .into_iter()
            .map(|url| len(url.as_ref().map(Url::as_str)))
            .sum::<usize>()
        + len(a.call_summary.as_ref().map(Summary::as_str))
}
