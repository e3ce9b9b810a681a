//! What the committers give to the follower of the log: bounded in number and in bytes, and
//! never waited for. What does not fit is in the log.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{
    domain::{Change, Timestamp},
    store::Position,
};

/// Batches on their way to the follower.
const MAX_BATCHES: usize = 64;
/// The changes in them, and in those that the follower keeps for later. A batch that is larger
/// would not fit into the memory of the feed either, by its default.
const MAX_KIB: usize = 32 * 1024;

/// A batch that this process has committed.
#[derive(Debug)]
pub struct CommittedBatch {
    /// Where the log ended before.
    pub before: Position,
    /// Where it ended after: at the last change of the batch. No other batch was committed
    /// between the two.
    pub end: Position,
    /// All changes in order, or none: then they are to be read from the log.
    pub changes: Vec<Change>,
    /// When it was committed, by the log's time.
    pub committed_at: Timestamp,
    /// The part of the memory that the changes take.
    _memory: Option<OwnedSemaphorePermit>,
}

/// The way to the follower. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct CommittedBatches {
    sender: mpsc::Sender<CommittedBatch>,
    /// A permit for each KiB.
    memory: Arc<Semaphore>,
}

impl CommittedBatches {
    pub(crate) fn new() -> (Self, mpsc::Receiver<CommittedBatch>) {
        let (sender, receiver) = mpsc::channel(MAX_BATCHES);
        let memory = Arc::new(Semaphore::new(MAX_KIB));
        (Self { sender, memory }, receiver)
    }

    /// Publishes the changes of a batch, without waiting. If there is no memory for them, the
    /// follower gets the batch without them, so that it reads the log at once.
    pub(crate) fn publish(&self, changes: &[Change], before: Position, stamp: i64) {
        let Some(last) = changes.last() else {
            return;
        };
        let memory = self.memory(changes);
        let batch = CommittedBatch {
            before,
            end: Position {
                revision: last.revision,
                stamp,
            },
            committed_at: last.changed_at,
            changes: memory.as_ref().map_or_else(Vec::new, |_| changes.to_vec()),
            _memory: memory,
        };
        // A follower that is so far behind reads the log soon.
        let _ = self.sender.try_send(batch);
    }

    fn memory(&self, changes: &[Change]) -> Option<OwnedSemaphorePermit> {
        let bytes: usize = changes.iter().map(Change::size).sum();
        let kib = u32::try_from(bytes.div_ceil(1024)).ok()?;
        let memory = Arc::clone(&self.memory).try_acquire_many_owned(kib);
        memory.ok()
    }
}
