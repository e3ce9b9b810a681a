//! Group commit: a bounded queue, and committers that take turns. The committer that has the
//! commit permit dequeues everything that is waiting, runs it through the state machine and
//! commits it in one statement. Then it passes the permit on, and sends the responses while
//! the next committer commits.
//!
//! A batch is dequeued as late as possible, because a larger batch costs less for each write.
//! It never waits for more writes to come.
//!
//! Other replicas commit between the batches of this one. The database orders all commits, and
//! a batch that was planned from a state that has changed since is planned again.

use std::sync::{Arc, atomic::AtomicBool};

use tokio::{
    runtime::Handle,
    sync::{
        Mutex,
        mpsc::{self, error::TrySendError},
        oneshot,
    },
};

use super::{
    committed_batch::CommittedBatches,
    committer::Committer,
    planner::Pending,
    queue::Queue,
    write::{Write, Written},
};
use crate::store::{
    change_log::head::HeadHint,
    database::{Availability, Throttle},
    error::WriteError,
    maintenance::upkeep::Upkeep,
    tasks::Tasks,
};

/// One committer commits while the other responds to its callers.
const COMMITTERS: usize = 2;
/// The connections that each of them may have: see `WriterSessions`.
const CONNECTIONS_OF_EACH: usize = 2;

/// The sending end of the queue. Clones share it; the committers end when all of them have been
/// dropped and the queue is empty.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Pending>,
    availability: Availability,
}

impl Writer {
    /// Starts the committers, which `tasks` owns. One that ends also ends the process: its
    /// batch may have been committed or not.
    pub(crate) fn start(
        upkeep: &Upkeep,
        availability: &Availability,
        head: &HeadHint,
        committed: &CommittedBatches,
        queue_len: usize,
        tasks: &Tasks,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(queue_len);
        upkeep.want_connections(COMMITTERS * CONNECTIONS_OF_EACH);
        let permit = Arc::new(Mutex::new(Queue::new(receiver)));
        let ready: Arc<[AtomicBool]> = (0..COMMITTERS).map(|_| AtomicBool::default()).collect();
        for place in 0..COMMITTERS {
            let committer = Committer {
                permit: Arc::clone(&permit),
                ready: Arc::clone(&ready),
                place,
                sessions: upkeep.writer_sessions(),
                upkeep: upkeep.clone(),
                availability: availability.clone(),
                head: head.clone(),
                committed: committed.clone(),
                tasks: tasks.tracker.clone(),
                opened: tasks.opened.clone(),
                refusals: Throttle::default(),
                poison: Throttle::default(),
                session: None,
            };
            let (supervisor, tracker) = (&tasks.supervisor, &tasks.tracker);
            supervisor.essential(tracker, "commits", committer.run());
        }
        Self {
            queue: sender,
            availability: availability.clone(),
        }
    }

    /// Submits a write and waits for its result. A caller that stops waiting
    /// before the write was taken from the queue withdraws it.
    pub(crate) async fn submit(&self, write: Write) -> Result<Written, WriteError> {
        if !self.availability.is_up() {
            return Err(WriteError::Unavailable);
        }
        let (pending, result) = pending(write);
        self.queue.try_send(pending).map_err(|error| match error {
            TrySendError::Full(_) => WriteError::Overloaded,
            TrySendError::Closed(_) => WriteError::Stopping,
        })?;
        answered(result).await
    }

    /// Advances the time up to which the log is known to be complete.
    pub(crate) async fn confirm_time(&self) -> Result<(), WriteError> {
        self.submit(Write::confirm_time()).await.map(drop)
    }

    /// The same as [`Writer::submit`], but waits while the queue is full.
    pub(crate) async fn submit_when_room(&self, write: Write) -> Result<Written, WriteError> {
        if !self.availability.is_up() {
            return Err(WriteError::Unavailable);
        }
        let (pending, result) = pending(write);
        let room = self.queue.reserve().await;
        room.map_err(|_| WriteError::Stopping)?.send(pending);
        answered(result).await
    }
}

/// The write of a caller on this thread, and where its result arrives.
pub(crate) fn pending(write: Write) -> (Pending, oneshot::Receiver<Result<Written, WriteError>>) {
    let (reply, result) = oneshot::channel();
    let pending = Pending {
        write,
        reply,
        caller: Handle::current(),
    };
    (pending, result)
}

/// The result that a committer sends. A committer that ends without one may have committed.
async fn answered(
    result: oneshot::Receiver<Result<Written, WriteError>>,
) -> Result<Written, WriteError> {
    result.await.unwrap_or(Err(WriteError::OutcomeUnknown))
}
