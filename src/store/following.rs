//! What the store gives to the one who follows its log.

use tokio::sync::mpsc;

use super::{CommittedBatch, Log, Notifications, WriteError, commit::writer::Writer};

/// What one follower of the log needs: the commits of this process as they take
/// place, the log for all else, and the word of other replicas.
pub struct Following {
    /// Commits of this process; what did not fit is in the log.
    pub commits: mpsc::Receiver<CommittedBatch>,
    /// The log, over a connection that nobody else uses.
    pub log: Log,
    /// To hear of other replicas' commits, and tell them of ours.
    pub notifications: Notifications,
    /// To move the log's time on while nothing is written.
    pub log_time: LogTime,
}

/// Moves the log's time on. Clones share the writer.
#[derive(Clone)]
pub struct LogTime(pub(super) Writer);

impl LogTime {
    /// Moves it on to now: no change that is committed from then on is earlier.
    ///
    /// # Errors
    /// [`WriteError`], as its variants say.
    pub async fn confirm(&self) -> Result<(), WriteError> {
        self.0.confirm_time().await
    }
}
