//! Reads on from any position in the log: from the ring as far as that reaches back, otherwise
//! from the database.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Entry, hub::Hub};
use crate::{
    domain::{Revision, Timestamp},
    store::{Log, LogError, Position},
};

/// The most entries taken from the ring at once.
const RING_PAGE: usize = 512;
/// The most entries in one read of the database, and the bytes that end it: there may be as many
/// pages as there are watchers.
const PAGE: i64 = 100;
const PAGE_BYTES: i64 = 256 * 1024;
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A position in the log to read on from; see the module.
pub struct LogReader {
    hub: Arc<Hub>,
    log: Log,
    position: Position,
    /// The head of the log when reading began. While the feed is behind it, its memory may
    /// still hold the content of calls that have been purged.
    head_at_start: Revision,
    /// When the entry at the position was committed. Everything that was committed earlier is
    /// before it in the log.
    time: Timestamp,
    /// Entries that were read from the database, and are not returned yet.
    read: VecDeque<Arc<Entry>>,
    /// The [`generation`](super::shared_batch::LatestBatch::generation) of those entries.
    generation: u64,
}

impl LogReader {
    pub(super) fn new(
        hub: Arc<Hub>,
        log: Log,
        position: Position,
        head_at_start: Revision,
    ) -> Self {
        Self {
            hub,
            log,
            position,
            head_at_start,
            time: Timestamp::MIN,
            read: VecDeque::new(),
            generation: 0,
        }
    }

    /// The position behind all the entries that were returned.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    pub(super) fn time(&self) -> Timestamp {
        self.time
    }

    /// Moves to a later position, with nothing of interest before it. The entry there was
    /// committed at `time` or later.
    pub(super) fn skip_to(&mut self, position: Position, time: Timestamp) {
        if position.revision > self.position.revision {
            self.position = position;
            self.read.clear();
        }
        self.time = self.time.max(time);
    }

    /// Moves past this entry, which came from elsewhere.
    pub(super) fn skip_past(&mut self, entry: &Entry) {
        self.skip_to(entry.position(), entry.change().changed_at);
    }

    /// The next entries up to `until`. `accept` is called once for each, and the first entry
    /// that it refuses ends the read and stays unread. Returns no entries if `accept` refuses
    /// the first one, or if the position is at `until` or at the end of the log.
    ///
    /// # Errors
    /// [`LogError`]: the log cannot be read on.
    pub async fn read_next(
        &mut self,
        until: Revision,
        mut accept: impl FnMut(&Entry) -> bool,
    ) -> Result<Vec<Arc<Entry>>, LogError> {
        if self.position.revision >= until {
            return Ok(Vec::new());
        }
        loop {
            let generation = self.hub.latest().generation();
            if self.generation != generation {
                // These entries may hold the content of a call that has been purged since.
                self.read.clear();
                self.generation = generation;
            }
            if !self.read.is_empty() {
                break;
            }
            let is_current = self.hub.head().position.revision >= self.head_at_start;
            let in_memory = is_current.then(|| self.hub.after(self.position, RING_PAGE));
            if let Some(entries) = in_memory.flatten()
                && !entries.is_empty()
            {
                return Ok(self.accept_from(entries, until, &mut accept));
            }
            // Boxed, because few watchers are so far behind, and the state would otherwise be
            // part of every watcher's.
            Box::pin(self.read_log()).await?;
            if self.read.is_empty() {
                return Ok(Vec::new());
            }
            // Once more: a call may have been purged after the entries were read.
        }
        let mut taken = Vec::new();
        while let Some(entry) = self.read.front()
            && entry.revision() <= until
            && accept(entry)
        {
            taken.extend(self.read.pop_front());
        }
        if let Some(last) = taken.last() {
            self.position = last.position();
            self.time = self.time.max(last.change().changed_at);
        }
        Ok(taken)
    }

    fn accept_from(
        &mut self,
        mut entries: Vec<Arc<Entry>>,
        until: Revision,
        accept: &mut impl FnMut(&Entry) -> bool,
    ) -> Vec<Arc<Entry>> {
        let count = entries
            .iter()
            .take_while(|entry| entry.revision() <= until && accept(entry))
            .count();
        entries.truncate(count);
        if let Some(last) = entries.last() {
            self.position = last.position();
            self.time = self.time.max(last.change().changed_at);
        }
        entries
    }

    /// Verifies in the database that the log contains the position.
    pub(super) async fn verify_position(&self) -> Result<(), LogError> {
        let deadline = Instant::now() + READ_TIMEOUT;
        let page = self.log.after(self.position, 0, None, deadline).await;
        page.map(drop).map_err(reached_before)
    }

    async fn read_log(&mut self) -> Result<(), LogError> {
        let deadline = Instant::now() + READ_TIMEOUT;
        let page = self
            .log
            .after(self.position, PAGE, Some(PAGE_BYTES), deadline);
        let page = page.await.map_err(reached_before)?;
        let entries = page.entries.into_iter();
        self.read
            .extend(entries.map(|entry| Arc::new(Entry::from(entry))));
        Ok(())
    }
}

/// The meaning of an error at a position that was in the log before.
fn reached_before(error: LogError) -> LogError {
    match error {
        LogError::Ahead { .. } => LogError::Reset,
        other => other,
    }
}
