//! One watcher's place in the feed.
//!
//! A watcher of everything reads the ring whenever the head moves. One whose
//! filter names calls, staff or clients has a mailbox, and sleeps until something
//! is put into it. Either reads the log when it has fallen behind the ring.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    Entry, Scan,
    hub::{Head, Hub},
    shared_batch::{Delivery, Shared},
    subscriptions::{Index, Mailbox},
};
use crate::{
    domain::{Filter, Revision, Timestamp, view::EventType},
    store::{LogError, Position},
};

/// A delivery ends at so many bytes or events, whichever comes first: small
/// enough that ten thousand watchers who stop reading hold little.
const DELIVERY_BYTES: usize = 64 * 1024;
const DELIVERY_EVENTS: usize = 1000;

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
    scan: Scan,
    head: watch::Receiver<Head>,
    /// Which log it is in; `None` until the feed follows one.
    log_count: Option<u64>,
    /// Whether its position is known to be in that log. It was taken from the database,
    /// and the feed may not have come so far, or follow a log that is not the one any more.
    is_placed: bool,
    /// How far the log reached when the watch began: memory that has not come so far may
    /// still hold what was purged since.
    seen: Revision,
    /// Where its changes are put, if its filter says which they are.
    mailbox: Option<Arc<Mailbox>>,
    /// What is not in the mailbox: up to here it scans.
    scan_until: Revision,
    /// All that was committed before has been delivered. The head's time may be
    /// ahead of the next entry's, so what was said once is kept.
    read_time: Timestamp,
    interval: Duration,
}

impl Cursor {
    /// All that was committed before `read_time` is at or before the scan's place.
    pub(super) fn new(
        hub: Arc<Hub>,
        scan: Scan,
        filter: Arc<Filter>,
        read_time: Timestamp,
        seen: Revision,
        interval: Duration,
    ) -> Self {
        hub.want(interval);
        let head = hub.subscribe();
        let mailbox = Index::takes(&filter).then(Arc::<Mailbox>::default);
        let scan_until = mailbox.as_ref().map_or(0, |mailbox| {
            hub.register(&filter, mailbox).position.revision
        });
        Self {
            hub,
            filter,
            scan,
            head,
            log_count: None,
            is_placed: false,
            seen,
            mailbox,
            scan_until,
            read_time,
            interval,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn point(&mut self) -> Point {
        self.skip_unwanted();
        let head = *self.head.borrow();
        let position = self.scan.position();
        self.read_time = self.read_time.max(self.scan.time());
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
    pub async fn next(&mut self) -> Result<Arc<Delivery>, LogError> {
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
            let delivery = match &self.mailbox {
                Some(mailbox) if self.scan.position().revision >= self.scan_until => {
                    let mailbox = Arc::clone(mailbox);
                    match self.take_mail(&mailbox) {
                        Some(events) => self.delivery(events),
                        None => continue,
                    }
                }
                Some(_) => {
                    let events = self.take_scan(self.scan_until).await?;
                    self.delivery(events)
                }
                None => self.take_shared(head.position.revision).await?,
            };
            if let Some(delivery) = delivery {
                return Ok(delivery);
            }
            if !self.may_have_more(head) {
                self.wait().await;
            }
        }
    }

    fn check_log(&mut self, head: Head) -> Result<(), LogError> {
        if head.confirmed_at.is_none() {
            return Ok(());
        }
        match self.log_count {
            Some(log_count) if log_count != head.log_count => Err(LogError::Reset),
            Some(_) => Ok(()),
            None => {
                self.log_count = Some(head.log_count);
                // What came before the feed began was put into no mailbox.
                self.scan_until = self.scan_until.max(head.position.revision);
                Ok(())
            }
        }
    }

    /// Makes sure that the position is in the log that the feed follows; false: the feed has
    /// not come so far.
    async fn place(&mut self, head: Head) -> Result<bool, LogError> {
        let position = self.scan.position();
        let wanted = position.revision.max(self.seen);
        if head.confirmed_at.is_none() || head.position.revision < wanted {
            return Ok(false);
        }
        if !self.hub.holds(position) {
            Box::pin(self.scan.check()).await?;
        }
        self.is_placed = true;
        Ok(true)
    }

    /// Whether there is something to look at without waiting.
    fn may_have_more(&self, head: Head) -> bool {
        let position = self.scan.position().revision;
        match &self.mailbox {
            Some(mailbox) => position < self.scan_until || !mailbox.is_empty(),
            None => position < head.position.revision,
        }
    }

    async fn wait(&mut self) {
        match &self.mailbox {
            Some(mailbox) => mailbox.filled.notified().await,
            // The hub outlives its cursors.
            None => drop(self.head.changed().await),
        }
    }

    /// The events in view up to the scan's place, if there are any.
    fn delivery(&self, events: Vec<(EventType, Arc<Entry>)>) -> Option<Arc<Delivery>> {
        let position = self.scan.position();
        (!events.is_empty()).then(|| Arc::new(Delivery::new(events, position)))
    }

    /// The next delivery by scanning, or what another watcher has scanned who was at the
    /// same place and wants the same.
    async fn take_shared(&mut self, until: Revision) -> Result<Option<Arc<Delivery>>, LogError> {
        let from = self.scan.position();
        if from.revision >= until {
            return Ok(None);
        }
        let voided = match self.hub.latest().get(&self.filter, from) {
            Ok(Shared { delivery, time, .. }) => {
                self.scan.skip_to(delivery.position, time);
                return Ok(Some(delivery));
            }
            Err(voided) => voided,
        };
        let events = self.take_scan(until).await?;
        let delivery = self.delivery(events);
        if let Some(delivery) = &delivery {
            let shared = Shared {
                filter: Arc::clone(&self.filter),
                from,
                delivery: Arc::clone(delivery),
                time: self.scan.time(),
            };
            self.hub.latest().put(voided, shared);
        }
        Ok(delivery)
    }

    /// The next events by scanning; may be none although there are more behind
    /// what was scanned.
    async fn take_scan(
        &mut self,
        until: Revision,
    ) -> Result<Vec<(EventType, Arc<Entry>)>, LogError> {
        let filter = Arc::clone(&self.filter);
        let (mut bytes, mut events) = (0, Vec::new());
        let entries = self
            .scan
            .take(until, |entry| {
                let event = filter.event(entry.change());
                let size = event.map_or(0, |_| entry.size());
                let fits = bytes == 0 || bytes + size <= DELIVERY_BYTES;
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

    /// What is in the mailbox; `None` after it overflowed: then scanning is next.
    fn take_mail(&mut self, mailbox: &Mailbox) -> Option<Vec<(EventType, Arc<Entry>)>> {
        let Some(entries) = mailbox.take(DELIVERY_EVENTS) else {
            self.scan_until = self.hub.rearm(mailbox).position.revision;
            return None;
        };
        let mut events = Vec::new();
        for entry in entries {
            if entry.revision() <= self.scan.position().revision {
                continue;
            }
            self.scan.pass(&entry);
            if let Some(event) = self.filter.event(entry.change()) {
                events.push((event, entry));
            }
        }
        Some(events)
    }

    /// Goes on to the head if nothing up to it is wanted.
    fn skip_unwanted(&mut self) {
        let Some(mailbox) = &self.mailbox else { return };
        if !self.is_placed || self.scan.position().revision < self.scan_until {
            return;
        }
        // The head first: what is put into the mailbox after this look is behind it.
        let head = self.hub.head();
        if Some(head.log_count) == self.log_count && mailbox.is_empty() {
            self.scan.skip_to(head.position, Timestamp::MIN);
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.hub.unwant(self.interval);
        if let Some(mailbox) = &self.mailbox {
            self.hub.unregister(&self.filter, mailbox);
        }
    }
}
