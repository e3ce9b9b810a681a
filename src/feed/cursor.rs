//! One watcher's position in the feed.
//!
//! A watcher whose view names calls, staff or clients has a queue, and sleeps until an entry
//! is put into it. Every other watcher reads the ring whenever the head moves. Both read the
//! log when they have fallen behind the ring.
//!
//! Invariant: every event in view is delivered once and in order, and everything in view up to
//! [`Cursor::point`] has been delivered.

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
    domain::{Revision, Timestamp, View, view::Event},
    store::{LogError, Position},
};

/// A batch ends at this many bytes or events, whichever comes first: small enough that ten
/// thousand watchers that stop reading hold little memory.
const BATCH_BYTES: usize = 64 * 1024;
const BATCH_EVENTS: usize = 1000;

/// How far a watcher has got.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// Everything in view up to here has been delivered.
    pub position: Position,
    /// The newest revision that the feed knows.
    pub head_revision: Revision,
    /// Everything that was committed before this time is at or before the position.
    /// [`Timestamp::MIN`] until more is known.
    pub read_time: Timestamp,
    /// When the head was last confirmed, by the clock of this process.
    pub confirmed_at: Option<Instant>,
}

/// A watcher's position in the feed; see the module.
pub struct Cursor {
    hub: Arc<Hub>,
    view: Arc<View>,
    reader: LogReader,
    head: watch::Receiver<FeedHead>,
    /// The log that the position is in; `None` until the feed follows a log.
    log_count: Option<u64>,
    /// Whether the position is known to be in that log. It was read from the database, and
    /// the feed may not have got that far, or may still follow a log that has been replaced.
    is_verified: bool,
    /// The head of the log when the watch began. While the feed is behind it, its memory may
    /// still hold the content of calls that have been purged.
    head_at_start: Revision,
    /// Receives the changes that may match, if the view names calls, staff or clients.
    queue: Option<Arc<WatcherQueue>>,
    /// Changes up to here are not in the queue, and are read from the ring or the log.
    read_until: Revision,
    /// Everything in view that was committed before this time has been delivered. It never
    /// goes back, although the head's time may be ahead of the next entry's.
    read_time: Timestamp,
    interval: Duration,
}

impl Cursor {
    /// Everything that was committed before `read_time` is at or before the reader's position.
    pub(super) fn new(
        hub: Arc<Hub>,
        reader: LogReader,
        view: Arc<View>,
        read_time: Timestamp,
        head_at_start: Revision,
        interval: Duration,
    ) -> Self {
        hub.add_interval(interval);
        let head = hub.subscribe();
        let queue = Subscriptions::supports(&view).then(Arc::<WatcherQueue>::default);
        let read_until = queue
            .as_ref()
            .map_or(0, |queue| hub.register(&view, queue).position.revision);
        Self {
            hub,
            view,
            reader,
            head,
            log_count: None,
            is_verified: false,
            head_at_start,
            queue,
            read_until,
            read_time,
            interval,
        }
    }

    /// How far the watcher has got.
    #[must_use]
    pub fn point(&mut self) -> Point {
        self.skip_to_head();
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

    /// Waits for the next events in view. Cancel-safe: a caller that stops waiting loses no
    /// event.
    ///
    /// # Errors
    /// [`LogError`]: the watch cannot continue.
    pub async fn next(&mut self) -> Result<Arc<SharedBatch>, LogError> {
        loop {
            // The head is marked as seen before anything else is read, so that every later
            // change of it wakes this watcher.
            let head = *self.head.borrow_and_update();
            self.check_log(head)?;
            if !self.is_verified && !self.verify_position(head).await? {
                // Cannot fail, because the hub outlives its cursors.
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
                None => self.next_shared(head.position.revision).await?,
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
                // No queue has the changes from before the feed began.
                self.read_until = self.read_until.max(head.position.revision);
                Ok(())
            }
        }
    }

    /// Verifies that the position is in the log that the feed follows. Returns false if the
    /// feed has not got that far.
    async fn verify_position(&mut self, head: FeedHead) -> Result<bool, LogError> {
        let position = self.reader.position();
        let needed = position.revision.max(self.head_at_start);
        if head.confirmed_at.is_none() || head.position.revision < needed {
            return Ok(false);
        }
        if !self.hub.contains(position) {
            Box::pin(self.reader.verify_position()).await?;
        }
        self.is_verified = true;
        Ok(true)
    }

    /// Whether there may be more to read without waiting.
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
            // Cannot fail, because the hub outlives its cursors.
            None => drop(self.head.changed().await),
        }
    }

    /// The batch of these events up to the reader's position; `None` if there are none.
    fn batch(&self, events: Vec<(Event, Arc<Entry>)>) -> Option<Arc<SharedBatch>> {
        let position = self.reader.position();
        (!events.is_empty()).then(|| Arc::new(SharedBatch::new(events, position)))
    }

    /// The next batch, read by this watcher, or by another one that was at the same position
    /// with the same view.
    async fn next_shared(&mut self, until: Revision) -> Result<Option<Arc<SharedBatch>>, LogError> {
        let from = self.reader.position();
        if from.revision >= until {
            return Ok(None);
        }
        let generation = match self.hub.latest().get(&self.view, from) {
            Ok(KeyedBatch { batch, time, .. }) => {
                self.reader.skip_to(batch.position, time);
                return Ok(Some(batch));
            }
            Err(generation) => generation,
        };
        let events = self.read_events(until).await?;
        let batch = self.batch(events);
        if let Some(batch) = &batch {
            let shared = KeyedBatch {
                view: Arc::clone(&self.view),
                from,
                batch: Arc::clone(batch),
                time: self.reader.time(),
            };
            self.hub.latest().put(generation, shared);
        }
        Ok(batch)
    }

    /// The next events from the ring or the log. There may be none although more follow
    /// behind the entries that were read.
    async fn read_events(&mut self, until: Revision) -> Result<Vec<(Event, Arc<Entry>)>, LogError> {
        let view = Arc::clone(&self.view);
        let (mut bytes, mut events) = (0, Vec::new());
        let entries = self
            .reader
            .read_next(until, |entry| {
                let event = view.event(entry.change());
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

    /// The events in the queue; `None` after it overflowed: then the entries have to be read.
    fn dequeue(&mut self, queue: &WatcherQueue) -> Option<Vec<(Event, Arc<Entry>)>> {
        let Some(entries) = queue.dequeue(BATCH_EVENTS) else {
            self.read_until = self.hub.rearm(queue).position.revision;
            return None;
        };
        let mut events = Vec::new();
        for entry in entries {
            if entry.revision() <= self.reader.position().revision {
                continue;
            }
            self.reader.skip_past(&entry);
            if let Some(event) = self.view.event(entry.change()) {
                events.push((event, entry));
            }
        }
        Some(events)
    }

    /// Moves the position to the head if nothing up to it is in view.
    fn skip_to_head(&mut self) {
        let Some(queue) = &self.queue else { return };
        if !self.is_verified || self.reader.position().revision < self.read_until {
            return;
        }
        // The head is read first: entries that are put into the queue later are behind it.
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
            self.hub.unregister(&self.view, queue);
        }
    }
}
