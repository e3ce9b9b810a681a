//! Reads on from any place in the log: from the ring where it reaches back so
//! far, else from the log itself.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Entry, hub::Hub};
use crate::{
    domain::{Revision, Timestamp},
    store::{Log, LogError, Position},
};

/// Entries taken at once.
const TAKE: usize = 512;
/// Entries in one read of the log.
const PAGE: i64 = 100;
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// See the module.
pub struct LogReader {
    hub: Arc<Hub>,
    log: Log,
    position: Position,
    /// Memory that has not come so far may still hold what was purged since.
    seen: Revision,
    /// When the entry at the position was committed; all before that is before
    /// it in the log.
    time: Timestamp,
    /// Read from the log, and not taken yet.
    read: VecDeque<Arc<Entry>>,
    /// What [`LatestBatch::voided`](super::batch::LatestBatch::voided) was then.
    voided: u64,
}

impl LogReader {
    pub(super) fn new(hub: Arc<Hub>, log: Log, position: Position, seen: Revision) -> Self {
        Self {
            hub,
            log,
            position,
            seen,
            time: Timestamp::MIN,
            read: VecDeque::new(),
            voided: 0,
        }
    }

    /// Where it is: behind all that was taken.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    pub(super) fn time(&self) -> Timestamp {
        self.time
    }

    /// Goes on to a position that is known to be further on, with nothing of interest
    /// before it; the entry there was committed at `time` or later.
    pub(super) fn skip_to(&mut self, position: Position, time: Timestamp) {
        if position.revision > self.position.revision {
            self.position = position;
            self.read.clear();
        }
        self.time = self.time.max(time);
    }

    /// Goes on behind this entry, which was got otherwise.
    pub(super) fn pass(&mut self, entry: &Entry) {
        self.skip_to(entry.position(), entry.change().changed_at);
    }

    /// The next entries, while `wants` them and up to `until`; it is asked once
    /// for each, and its first refusal ends it before that entry. None at all
    /// only when the log ends here.
    ///
    /// # Errors
    /// [`LogError`]: it cannot go on.
    pub async fn take(
        &mut self,
        until: Revision,
        mut wants: impl FnMut(&Entry) -> bool,
    ) -> Result<Vec<Arc<Entry>>, LogError> {
        if self.position.revision >= until {
            return Ok(Vec::new());
        }
        let voided = self.hub.latest().voided();
        if self.voided != voided {
            // What was read before may say what a purged call was.
            self.read.clear();
            self.voided = voided;
        }
        if self.read.is_empty() {
            let has_seen = self.hub.head().position.revision >= self.seen;
            let in_memory = has_seen.then(|| self.hub.after(self.position, TAKE));
            match in_memory.flatten() {
                Some(entries) if !entries.is_empty() => {
                    return Ok(self.taken(entries, until, &mut wants));
                }
                // Few are so far behind, so its state is not in every watcher's.
                _ => Box::pin(self.read_log()).await?,
            }
        }
        let mut taken = Vec::new();
        while let Some(entry) = self.read.front()
            && entry.revision() <= until
            && wants(entry)
        {
            taken.extend(self.read.pop_front());
        }
        if let Some(last) = taken.last() {
            self.position = last.position();
            self.time = self.time.max(last.change().changed_at);
        }
        Ok(taken)
    }

    fn taken(
        &mut self,
        mut entries: Vec<Arc<Entry>>,
        until: Revision,
        wants: &mut impl FnMut(&Entry) -> bool,
    ) -> Vec<Arc<Entry>> {
        let count = entries
            .iter()
            .take_while(|entry| entry.revision() <= until && wants(entry))
            .count();
        entries.truncate(count);
        if let Some(last) = entries.last() {
            self.position = last.position();
            self.time = self.time.max(last.change().changed_at);
        }
        entries
    }

    /// Whether the log has the position, by the database's own word.
    pub(super) async fn check(&self) -> Result<(), LogError> {
        let deadline = Instant::now() + READ_TIMEOUT;
        let page = self.log.after(self.position, 0, deadline).await;
        page.map(drop).map_err(reached_before)
    }

    async fn read_log(&mut self) -> Result<(), LogError> {
        let deadline = Instant::now() + READ_TIMEOUT;
        let page = self.log.after(self.position, PAGE, deadline).await;
        let page = page.map_err(reached_before)?;
        let entries = page.entries.into_iter();
        self.read
            .extend(entries.map(|entry| Arc::new(Entry::from(entry))));
        Ok(())
    }
}

/// What an error means at a position that was reached once.
fn reached_before(error: LogError) -> LogError {
    match error {
        LogError::Ahead { .. } => LogError::Reset,
        other => other,
    }
}
