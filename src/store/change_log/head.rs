//! About how far the log reaches.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use crate::domain::Revision;

/// The revision that this process has seen last: a hint for how large the tables are. It
/// promises nothing: the log may have been set back since. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeadHint(Arc<AtomicI64>);

impl HeadHint {
    pub(crate) fn get(&self) -> Revision {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, revision: Revision) {
        self.0.store(revision, Ordering::Relaxed);
    }
}
