//! One watcher's place in the feed.
//!
//! A watcher of everything reads the ring whenever the head moves. One whose
//! filter names calls, staff or clients has a queue, and sleeps until something
//! is put into it. Either reads the log when it has fallen behind the ring.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    Entry, LogReader,
    hub::{FeedHead, Hub},
    shared_batch::{KeyedBatch, SharedBatch},
    subscriptions::{Subscriptions, WatcherQueue},
};
use crate::{
    domain::{Filter, Revision, Timestamp, view::EventType},
    store::{LogError, Position},
};

/// A batch ends at so many bytes or events, whichever comes first: small
/// enough that ten thousand watchers who stop reading hold little.
const BATCH_BYTES: usize = 64 * 1024;
const BATCH_EVENTS: usize = 1000;

/// How far a watcher has come.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// Everything in view up to here has been delivered.
    pub position: Position,
    /// The newest revision that the feed knows of.
    pub head_revision: Revision,
    /// All that was committed before this time is at or before the position; the
    /// least there is until more is known.
    pub read_time: Timestamp,
    /// When the head was last confirmed, by our own clock.
    pub confirmed_at: Option<Instant>,
}

/// See the module.
pub struct Cursor {
    hub: Arc<Hub>,
    filter: Arc<Filter>,
    reader: LogReader,
    head: watch::Receiver<FeedHead>,
    /// Which log it is in; `None` until the feed follows one.
    log_count: Option<u64>,
    /// Whether its position is known to be in that log. It was taken from the database,
    /// and the feed may not have come so far, or follow a log that is not the one any more.
    is_placed: bool,
    /// How far the log reached when the watch began: memory that has not come so far may
    /// still hold what was purged since.
    seen: Revision,
    /// Where its changes are put, if its filter says which they are.
    queue: Option<Arc<WatcherQueue>>,
    /// What is not in the queue: up to here it scans.
    read_until: Revision,
    /// All that was committed before has been delivered. The head's time may be
    /// ahead of the next entry's, so what was said once is kept.
    read_time: Timestamp,
    interval: Duration,
}

impl Cursor {
    /// All that was committed before `read_time` is at or before the reader's place.
    pub(super) fn new(
        hub: Arc<Hub>,
        reader: LogReader,
        filter: Arc<Filter>,
        read_time: Timestamp,
        seen: Revision,
        interval: Duration,
    ) -> Self {
        hub.add_interval(interval);
        let head = hub.subscribe();
        let queue = Subscriptions::takes(&filter).then(Arc::<WatcherQueue>::default);
        let read_until = queue
            .as_ref()
            .map_or(0, |queue| hub.register(&filter, queue).position.revision);
        Self {
            hub,
            filter,
            reader,
            head,
            log_count: None,
            is_placed: false,
            seen,
            queue,
            read_until,
            read_time,
            interval,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn point(&mut self) -> Point {
        self.skip_unwanted();
        let head = *self.head.borrow();
        let position = self.reader.position();
        self.read_time = self.read_time.max(self.reader.time());
        if position.revision >= head.position.revision {
            self.read_time = self.read_time.max(head.read_time);
        }
        Point {
            position,
            head_revision: head.position.revision.max(position.revision),
            read_time: self.read_time,
            confirmed_at: head.confirmed_at,
        }
    }

    /// Waits for the next events in view. A caller that stops waiting loses
    /// nothing.
    ///
    /// # Errors
    /// [`LogError`]: the watch cannot go on.
    pub async fn next(&mut self) -> Result<Arc<SharedBatch>, LogError> {
        loop {
            // Taken note of before anything is looked at, so that what comes
            // later wakes.
            let head = *self.head.borrow_and_update();
            self.check_log(head)?;
            if !self.is_placed && !self.place(head).await? {
                // The hub outlives its cursors.
                drop(self.head.changed().await);
                continue;
            }
            let batch = match &self.queue {
                Some(queue) if self.reader.position().revision >= self.read_until => {
                    let queue = Arc::clone(queue);
                    match self.dequeue(&queue) {
                        Some(events) => self.batch(events),
                        None => continue,
                    }
                }
                Some(_) => {
                    let events = self.read_events(self.read_until).await?;
                    self.batch(events)
                }
                None => self.take_shared(head.position.revision).await?,
            };
            if let Some(batch) = batch {
                return Ok(batch);
            }
            if !self.may_have_more(head) {
                self.wait().await;
            }
        }
    }

    fn check_log(&mut self, head: FeedHead) -> Result<(), LogError> {
        if head.confirmed_at.is_none() {
            return Ok(());
        }
        match self.log_count {
            Some(log_count) if log_count != head.log_count => Err(LogError::Reset),
            Some(_) => Ok(()),
            None => {
                self.log_count = Some(head.log_count);
                // What came before the feed began was put into no queue.
                self.read_until = self.read_until.max(head.position.revision);
                Ok(())
            }
        }
    }

    /// Makes sure that the position is in the log that the feed follows; false: the feed has
    /// not come so far.
    async fn place(&mut self, head: FeedHead) -> Result<bool, LogError> {
        let position = self.reader.position();
        let wanted = position.revision.max(self.seen);
        if head.confirmed_at.is_none() || head.position.revision < wanted {
            return Ok(false);
        }
        if !self.hub.holds(position) {
            Box::pin(self.reader.check()).await?;
        }
        self.is_placed = true;
        Ok(true)
    }

    /// Whether there is something to look at without waiting.
    fn may_have_more(&self, head: FeedHead) -> bool {
        let position = self.reader.position().revision;
        match &self.queue {
            Some(queue) => position < self.read_until || !queue.is_empty(),
            None => position < head.position.revision,
        }
    }

    async fn wait(&mut self) {
        match &self.queue {
            Some(queue) => queue.filled.notified().await,
            // The hub outlives its cursors.
            None => drop(self.head.changed().await),
        }
    }

    /// The events in view up to the reader's place, if there are any.
    fn batch(&self, events: Vec<(EventType, Arc<Entry>)>) -> Option<Arc<SharedBatch>> {
        let position = self.reader.position();
        (!events.is_empty()).then(|| Arc::new(SharedBatch::new(events, position)))
    }

    /// The next batch by scanning, or what another watcher has scanned who was at the
    /// same place and wants the same.
    async fn take_shared(&mut self, until: Revision) -> Result<Option<Arc<SharedBatch>>, LogError> {
        let from = self.reader.position();
        if from.revision >= until {
            return Ok(None);
        }
        let voided = match self.hub.latest().get(&self.filter, from) {
            Ok(KeyedBatch { batch, time, .. }) => {
                self.reader.skip_to(batch.position, time);
                return Ok(Some(batch));
            }
            Err(voided) => voided,
        };
        let events = self.read_events(until).await?;
        let batch = self.batch(events);
        if let Some(batch) = &batch {
            let shared = KeyedBatch {
                filter: Arc::clone(&self.filter),
                from,
                batch: Arc::clone(batch),
                time: self.reader.time(),
            };
            self.hub.latest().put(voided, shared);
        }
        Ok(batch)
    }

    /// The next events by scanning; may be none although there are more behind
    /// what was scanned.
    async fn read_events(
        &mut self,
        until: Revision,
    ) -> Result<Vec<(EventType, Arc<Entry>)>, LogError> {
        let filter = Arc::clone(&self.filter);
        let (mut bytes, mut events) = (0, Vec::new());
        let entries = self
            .reader
            .take(until, |entry| {
                let event = filter.event(entry.change());
                let size = event.map_or(0, |_| entry.size());
                let fits = bytes == 0 || bytes + size <= BATCH_BYTES;
                if fits {
                    bytes += size;
                    events.push(event);
                }
                fits
            })
            .await?;
        let events = events.into_iter().zip(entries);
        Ok(events
            .filter_map(|(event, entry)| Some((event?, entry)))
            .collect())
    }

    /// What is in the queue; `None` after it overflowed: then scanning is next.
    fn dequeue(&mut self, queue: &WatcherQueue) -> Option<Vec<(EventType, Arc<Entry>)>> {
        let Some(entries) = queue.take(BATCH_EVENTS) else {
            self.read_until = self.hub.rearm(queue).position.revision;
            return None;
        };
        let mut events = Vec::new();
        for entry in entries {
            if entry.revision() <= self.reader.position().revision {
                continue;
            }
            self.reader.pass(&entry);
            if let Some(event) = self.filter.event(entry.change()) {
                events.push((event, entry));
            }
        }
        Some(events)
    }

    /// Goes on to the head if nothing up to it is wanted.
    fn skip_unwanted(&mut self) {
        let Some(queue) = &self.queue else { return };
        if !self.is_placed || self.reader.position().revision < self.read_until {
            return;
        }
        // The head first: what is put into the queue after this look is behind it.
        let head = self.hub.head();
        if Some(head.log_count) == self.log_count && queue.is_empty() {
            self.reader.skip_to(head.position, Timestamp::MIN);
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.hub.remove_interval(self.interval);
        if let Some(queue) = &self.queue {
            self.hub.unregister(&self.filter, queue);
        }
    }
}
