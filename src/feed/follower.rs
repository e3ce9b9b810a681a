//! Keeps the feed at the head of the log.
//!
//! A batch of this process that directly follows the head, by revision and by stamp, is
//! appended from memory, without a read. Everything else is read from the log: as soon as
//! there is a notification by another replica or a gap in the revisions, and at regular
//! intervals.
//!
//! Invariant: the head moves along one log, without a gap. If that is impossible, because the
//! log was replaced or set back, the feed restarts at its new end.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tokio::time::{Instant as Deadline, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Entry, hub::Hub};
use crate::{
    domain::Revision,
    store::{CommittedBatch, Following, LogError, ReadError, Tail},
};

/// How often the log is read without a notification: while only this replica writes, and
/// while others do.
const IDLE_POLL: Duration = Duration::from_millis(500);
const BUSY_POLL: Duration = Duration::from_millis(50);
/// Other replicas count as writing for this long after their last change.
const OTHERS_WRITE_FOR: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// The log's time is advanced when there has been no write for this long.
const ADVANCE_TIME_AFTER_MICROS: i64 = 1_000_000;
/// The most entries in one read.
const PAGE: i64 = 500;
/// The most own batches that are kept until the entries before them have been read.
const MAX_AHEAD: usize = 16;

/// The task that follows the log.
pub(super) struct Follower {
    hub: Arc<Hub>,
    following: Following,
    stop: CancellationToken,
    /// Batches of this process whose predecessors are missing, by their first revision.
    ahead: BTreeMap<Revision, CommittedBatch>,
    /// Until when other replicas count as writing.
    others_write_until: Option<Instant>,
    next_poll: Instant,
    started: bool,
    /// Advances the log's time, which may take as long as a write.
    advancing_time: Option<BoxFuture<'static, ()>>,
}

impl Follower {
    pub(super) fn new(hub: Arc<Hub>, following: Following, stop: CancellationToken) -> Self {
        Self {
            hub,
            following,
            stop,
            ahead: BTreeMap::new(),
            others_write_until: None,
            next_poll: Instant::now(),
            started: false,
            advancing_time: None,
        }
    }

    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow() => {}
        }
    }

    /// Returns when the store has ended.
    async fn follow(&mut self) {
        while !self.started {
            if self.restart().await.is_err() {
                sleep(RETRY_DELAY).await;
            }
        }
        loop {
            let poll = sleep(self.next_poll.saturating_duration_since(Instant::now()));
            tokio::select! {
                commit = self.following.commits.recv() => match commit {
                    Some(commit) => self.on_commit(commit).await,
                    None => return,
                },
                () = self.following.notifications.received() => self.read().await,
                () = poll => self.read().await,
                () = async {
                    match &mut self.advancing_time {
                        Some(advancing_time) => advancing_time.await,
                        None => std::future::pending().await,
                    }
                } => {
                    self.advancing_time = None;
                    self.read().await;
                }
            }
        }
    }

    /// Handles a batch that this process has committed.
    async fn on_commit(&mut self, commit: CommittedBatch) {
        self.following.notifications.announce();
        let head = self.hub.head().position;
        let (is_next, has_changes) = (commit.before == head, !commit.changes.is_empty());
        if is_next && has_changes {
            self.append(commit);
            self.append_ahead();
        } else if is_next || commit.before.revision > head.revision {
            if has_changes && self.ahead.len() < MAX_AHEAD {
                self.ahead.insert(commit.before.revision + 1, commit);
            }
            self.read().await;
        } else {
            // The batch was read from the log before this process reported it, unless the log
            // was set back, which the read would find out.
            if !self.hub.contains(commit.end) {
                self.read().await;
            }
        }
    }

    fn append(&mut self, commit: CommittedBatch) {
        let entries = commit
            .changes
            .into_iter()
            .map(|change| Arc::new(Entry::new(change, commit.end.stamp)))
            .collect();
        self.hub.append(entries, commit.committed_at);
        self.next_poll = Instant::now() + self.interval();
    }

    /// Appends the batches of this process that now follow the head, and drops those that
    /// have been read meanwhile.
    fn append_ahead(&mut self) {
        while let Some(first) = self.ahead.first_entry() {
            let head = self.hub.head().position;
            if *first.key() > head.revision + 1 {
                return;
            }
            let commit = first.remove();
            if commit.before == head {
                self.append(commit);
            }
        }
    }

    /// Reads what follows the head, up to the end of the log.
    async fn read(&mut self) {
        loop {
            let head = self.hub.head().position;
            let deadline = Deadline::now() + READ_TIMEOUT;
            let page = self.following.log.after(head, PAGE, None, deadline);
            match page.await {
                Ok(page) => {
                    let full = i64::try_from(page.entries.len()).is_ok_and(|len| len == PAGE);
                    if page.entries.is_empty() {
                        self.hub.confirm(page.tail.read_time);
                        self.advance_time(&page.tail);
                        break;
                    }
                    self.others_write_until = Some(Instant::now() + OTHERS_WRITE_FOR);
                    let entries = page.entries.into_iter();
                    let entries = entries.map(|entry| Arc::new(Entry::from(entry))).collect();
                    if full {
                        self.hub.append_part(entries);
                    } else {
                        self.hub.append(entries, page.tail.read_time);
                        break;
                    }
                }
                Err(LogError::Read(error)) => {
                    self.failed(&error).await;
                    return;
                }
                Err(LogError::Reset | LogError::Ahead { .. } | LogError::Compacted { .. }) => {
                    warn!(
                        "the change log was replaced or lost changes; watches end with FEED_RESET"
                    );
                    if let Err(error) = self.restart().await {
                        self.failed(&error).await;
                    }
                    return;
                }
            }
        }
        self.append_ahead();
        self.next_poll = Instant::now() + self.interval();
    }

    /// Advances the log's time if nothing has been written for a while and there are
    /// watchers.
    fn advance_time(&mut self, tail: &Tail) {
        let age = tail.clock.micros().saturating_sub(tail.read_time.micros());
        let is_old = age > ADVANCE_TIME_AFTER_MICROS;
        if is_old && self.advancing_time.is_none() && self.hub.shortest_interval().is_some() {
            let log_time = self.following.log_time.clone();
            // A failure is retried after the next read.
            let confirm = async move { drop(log_time.confirm().await) };
            self.advancing_time = Some(Box::pin(confirm));
        }
    }

    async fn failed(&mut self, error: &ReadError) {
        // The store says so itself of a database that is not there, or has no connection left.
        if !matches!(error, ReadError::Unavailable | ReadError::Overloaded) {
            warn!(%error, "the feed cannot read the change log; retrying");
        }
        self.next_poll = Instant::now() + RETRY_DELAY;
        // Batches that arrive meanwhile will be found in the log.
        sleep(RETRY_DELAY).await;
    }

    /// Starts again at the current end of the log.
    async fn restart(&mut self) -> Result<(), ReadError> {
        let tail = self
            .following
            .log
            .tail(Deadline::now() + READ_TIMEOUT)
            .await?;
        self.ahead.clear();
        self.hub.restart(tail.head, tail.read_time);
        self.started = true;
        self.next_poll = Instant::now() + self.interval();
        Ok(())
    }

    fn interval(&self) -> Duration {
        let others_write = self
            .others_write_until
            .is_some_and(|until| Instant::now() < until);
        let poll = if others_write { BUSY_POLL } else { IDLE_POLL };
        self.hub
            .shortest_interval()
            .map_or(poll, |interval| interval.min(poll))
    }
}
