//! The calls that were purged lately, and pages of calls that leave them out. What the feed itself
//! holds of a purged call is erased by `hub`.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::SnapshotError;
use crate::domain::{Call, Uuid};

/// How many are remembered: 16 bytes each.
const MAX_REMEMBERED: usize = 100_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Purges {
    /// How many there were since the process began.
    count: AtomicUsize,
    recent: Mutex<VecDeque<Uuid>>,
}

impl Purges {
    pub(super) fn push(&self, uid: Uuid) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == MAX_REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(uid);
        self.count.fetch_add(1, Ordering::Release);
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Those that came after the first `seen`; `None`: not all of them are remembered.
    fn since(&self, seen: usize) -> Option<(HashSet<Uuid>, usize)> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.count();
        let new = count - seen;
        let known = new <= recent.len();
        known.then(|| (recent.iter().rev().take(new).copied().collect(), count))
    }
}

/// Calls that have been read and not been sent. One that is purged meanwhile is left out.
#[derive(Debug, Default)]
pub struct UnsentCalls {
    calls: VecDeque<Call>,
    purges: Arc<Purges>,
    /// Purges that cannot be among the calls: they came before the calls were read.
    seen: usize,
}

impl UnsentCalls {
    pub(super) fn new(calls: Vec<Call>, purges: Arc<Purges>, seen: usize) -> Self {
        Self {
            calls: calls.into(),
            purges,
            seen,
        }
    }

    /// The next call.
    ///
    /// # Errors
    /// [`SnapshotError::TooSlow`]: more calls were purged meanwhile than are remembered.
    pub fn pop(&mut self) -> Result<Option<Call>, SnapshotError> {
        if self.purges.count() != self.seen {
            let (purged, count) = self.purges.since(self.seen).ok_or(SnapshotError::TooSlow)?;
            self.calls.retain(|call| !purged.contains(&call.uid));
            self.seen = count;
        }
        Ok(self.calls.pop_front())
    }
}
