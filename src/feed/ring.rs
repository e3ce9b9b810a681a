//! The last entries of the log, without a gap, bounded by their size.

use std::{collections::VecDeque, sync::Arc};

use super::Entry;
use crate::{
    domain::{Revision, Uuid},
    store::Position,
};

/// The entries in memory; see the module.
#[derive(Debug)]
pub(super) struct Ring {
    entries: VecDeque<Arc<Entry>>,
    /// The position before the first entry.
    base: Position,
    size: usize,
    max_size: usize,
}

impl Ring {
    pub(super) fn new(max_size: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            base: Position::default(),
            size: 0,
            max_size,
        }
    }

    /// Starts again, empty, behind this position.
    pub(super) fn restart(&mut self, base: Position) {
        self.entries.clear();
        self.base = base;
        self.size = 0;
    }

    /// Adds the entry that follows the last one.
    pub(super) fn push(&mut self, entry: Arc<Entry>) {
        self.size += entry.size();
        self.entries.push_back(entry);
        while self.size > self.max_size
            && let Some(oldest) = self.entries.pop_front()
        {
            self.size -= oldest.size();
            self.base = oldest.position();
        }
    }

    /// The entry at this revision.
    pub(super) fn at(&self, revision: Revision) -> Option<&Arc<Entry>> {
        let first = self.entries.front()?.revision();
        let place = usize::try_from(revision.checked_sub(first)?).ok()?;
        self.entries.get(place)
    }

    /// The entries after this position, at most `limit`; `None` when the ring
    /// does not reach back to it, or has another stamp there.
    pub(super) fn after(&self, position: Position, limit: usize) -> Option<Vec<Arc<Entry>>> {
        let first = self.entries.front()?.revision();
        let skip = usize::try_from((position.revision + 1).checked_sub(first)?).ok()?;
        let own = match skip {
            0 => Some(self.base),
            _ => self.entries.get(skip - 1).map(|entry| entry.position()),
        };
        if own.is_some_and(|own| own != position) {
            return None;
        }
        Some(
            self.entries
                .iter()
                .skip(skip)
                .take(limit)
                .cloned()
                .collect(),
        )
    }

    /// Erases the content of a call from its entries.
    pub(super) fn erase(&mut self, uid: Uuid) {
        for entry in self
            .entries
            .iter_mut()
            .filter(|entry| entry.change().uid == uid)
        {
            let erased = entry.erased();
            self.size = self.size + erased.size() - entry.size();
            *entry = Arc::new(erased);
        }
    }
}
