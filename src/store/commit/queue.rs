//! The writes that wait for the writer.

use std::mem;

use tokio::{sync::mpsc, task::yield_now};

use super::planner::Pending;
use crate::store::change_log::log::Position;

/// The most changes in a batch; a single write may exceed it.
const MAX_BATCH_CHANGES: usize = 512;

/// The queued writes. The committer that holds the queue has the commit permit.
pub(crate) struct Queue {
    receiver: mpsc::Receiver<Pending>,
    /// Writes that the last batch postponed; fewer than a batch holds.
    pub(crate) postponed: Vec<Pending>,
    /// The end of the log after the last commit, and the timeline of the database on which it
    /// was made: the next commit comes after it.
    pub(crate) last_commit: Option<(String, Position)>,
}

impl Queue {
    pub(crate) fn new(receiver: mpsc::Receiver<Pending>) -> Self {
        Self {
            receiver,
            postponed: Vec::new(),
            last_commit: None,
        }
    }

    /// Dequeues all writes, without waiting.
    pub(crate) fn drain(&mut self) -> Vec<Pending> {
        let mut taken = mem::take(&mut self.postponed);
        while let Ok(pending) = self.receiver.try_recv() {
            taken.push(pending);
        }
        taken
    }

    /// Dequeues a batch, and waits for a write if there is none. Empty: the queue is closed
    /// and has no more writes.
    pub(crate) async fn take(&mut self) -> Vec<Pending> {
        loop {
            let mut taken = mem::take(&mut self.postponed);
            if taken.is_empty() {
                match self.receiver.recv().await {
                    Some(pending) => taken.push(pending),
                    None => return taken,
                }
                // The runtime runs the task that was woken last first: this lets the others
                // that are about to write enqueue too.
                yield_now().await;
            }
            let mut changes: usize = taken.iter().map(|pending| pending.write.len()).sum();
            while changes < MAX_BATCH_CHANGES {
                let Ok(pending) = self.receiver.try_recv() else {
                    break;
                };
                changes += pending.write.len();
                taken.push(pending);
            }
            // A caller that has stopped waiting has withdrawn its write.
            taken.retain(|pending| !pending.reply.is_closed());
            if !taken.is_empty() {
                return taken;
            }
        }
    }
}
