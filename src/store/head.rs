//! The newest revision this process has seen.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use crate::domain::Revision;

/// The newest revision that this process has seen committed: the log reaches at
/// least so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Head(Arc<AtomicI64>);

impl Head {
    pub(super) fn get(&self) -> Revision {
        self.0.load(Ordering::Acquire)
    }

    /// Takes note of a committed revision.
    pub(super) fn advance(&self, revision: Revision) {
        self.0.fetch_max(revision, Ordering::AcqRel);
    }
}
