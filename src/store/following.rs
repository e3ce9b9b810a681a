//! What the store gives to the follower of its log.

use tokio::sync::mpsc;

use super::{CommittedBatch, Log, Notifications, WriteError, commit::writer::Writer};

/// What the follower of the log needs: the commits of this process as they take place, the log for
/// all other changes, and the notifications of other replicas.
pub struct Following {
    /// Commits of this process; those that did not fit are in the log.
    pub commits: mpsc::Receiver<CommittedBatch>,
    /// The log, over a connection of its own.
    pub log: Log,
    /// Notifications of commits, in both directions.
    pub notifications: Notifications,
    /// Advances the log's time while nothing is written.
    pub log_time: LogTime,
}

/// Advances the log's time. Clones share the writer.
#[derive(Clone)]
pub struct LogTime(pub(super) Writer);

impl LogTime {
    /// Advances it to now: no change that is committed after this has an earlier time.
    ///
    /// # Errors
    /// [`WriteError`], as its variants say.
    pub async fn confirm(&self) -> Result<(), WriteError> {
        self.0.confirm_time().await
    }
}
