//! Keeps the feed at the head of the log.
//!
//! A batch of this process that follows the head directly, by revision and by
//! stamp, comes from memory: no read. Everything else is read from the log, as
//! soon as another replica's word or a gap tells that it is there, and otherwise
//! every now and then.

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
    store::{CommittedBatch, Following, LogError, Position, ReadError, Tail},
};

/// How often the log is read while nothing tells of changes, and while other
/// replicas write.
const IDLE_POLL: Duration = Duration::from_millis(500);
const BUSY_POLL: Duration = Duration::from_millis(50);
/// How long others are taken to write after their last change.
const OTHERS_WRITE_FOR: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// After how long without a write the log's time is moved on.
const TIME_IS_OLD_AFTER_MICROS: i64 = 1_000_000;
/// Entries in one read.
const PAGE: i64 = 500;
/// Own batches that are kept until what is before them has been read.
const MAX_AHEAD: usize = 16;

/// The task that follows the log.
pub(super) struct Follower {
    hub: Arc<Hub>,
    following: Following,
    stop: CancellationToken,
    /// Own batches whose predecessors are missing, by their first revision.
    ahead: BTreeMap<Revision, CommittedBatch>,
    /// Until when other replicas are taken to write.
    others_until: Option<Instant>,
    next_poll: Instant,
    started: bool,
    /// The log's time is being moved on, which may take as long as a write.
    confirming: Option<BoxFuture<'static, ()>>,
}

impl Follower {
    pub(super) fn new(hub: Arc<Hub>, following: Following, stop: CancellationToken) -> Self {
        Self {
            hub,
            following,
            stop,
            ahead: BTreeMap::new(),
            others_until: None,
            next_poll: Instant::now(),
            started: false,
            confirming: None,
        }
    }

    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow() => {}
        }
    }

    /// Ends when the store does.
    async fn follow(&mut self) {
        while !self.started {
            if self.restart().await.is_err() {
                sleep(RETRY_AFTER).await;
            }
        }
        loop {
            let poll = sleep(self.next_poll.saturating_duration_since(Instant::now()));
            tokio::select! {
                commit = self.following.commits.recv() => match commit {
                    Some(commit) => self.take(commit).await,
                    None => return,
                },
                () = self.following.notifications.heard() => self.read().await,
                () = poll => self.read().await,
                () = async {
                    match &mut self.confirming {
                        Some(confirming) => confirming.await,
                        None => std::future::pending().await,
                    }
                } => {
                    self.confirming = None;
                    self.read().await;
                }
            }
        }
    }

    /// A batch of this process.
    async fn take(&mut self, commit: CommittedBatch) {
        self.following.notifications.tell();
        let head = self.hub.head().position;
        if commit.before == head {
            self.append(commit);
            self.append_ahead();
        } else if commit.before.revision > head.revision {
            if self.ahead.len() < MAX_AHEAD {
                self.ahead.insert(commit.before.revision + 1, commit);
            }
            self.read().await;
        } else {
            // Read from the log before it was told of, unless the log was set
            // back: reading finds that out.
            let last = commit.changes.last().map_or(0, |change| change.revision);
            let known = Position {
                revision: last,
                stamp: commit.stamp,
            };
            if !self.hub.holds(known) {
                self.read().await;
            }
        }
    }

    fn append(&mut self, commit: CommittedBatch) {
        let entries = commit
            .changes
            .into_iter()
            .map(|change| Arc::new(Entry::new(change, commit.stamp)))
            .collect();
        self.hub.append(entries, commit.committed_at);
        self.next_poll = Instant::now() + self.interval();
    }

    /// Appends the own batches whose turn has come, and drops those that have
    /// been read meanwhile.
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

    /// Reads what follows the head until there is no more.
    async fn read(&mut self) {
        loop {
            let head = self.hub.head().position;
            let deadline = Deadline::now() + READ_TIMEOUT;
            match self.following.log.after(head, PAGE, deadline).await {
                Ok(page) => {
                    let full = i64::try_from(page.entries.len()).is_ok_and(|len| len == PAGE);
                    if page.entries.is_empty() {
                        self.hub.confirm(page.tail.read_time);
                        self.move_time_on(&page.tail);
                        break;
                    }
                    self.others_until = Some(Instant::now() + OTHERS_WRITE_FOR);
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
                        "the change log has been replaced or set back; watches end with FEED_RESET"
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

    /// Moves the log's time on if nothing has been written for a while and somebody wants
    /// to know.
    fn move_time_on(&mut self, tail: &Tail) {
        let age = tail.clock.micros().saturating_sub(tail.read_time.micros());
        let is_old = age > TIME_IS_OLD_AFTER_MICROS;
        if is_old && self.confirming.is_none() && self.hub.shortest_interval().is_some() {
            let log_time = self.following.log_time.clone();
            // One that fails is tried again after the next read.
            let confirm = async move { drop(log_time.confirm().await) };
            self.confirming = Some(Box::pin(confirm));
        }
    }

    async fn failed(&mut self, error: &ReadError) {
        if *error != ReadError::Unavailable {
            warn!(%error, "the feed cannot read the change log; retrying");
        }
        self.next_poll = Instant::now() + RETRY_AFTER;
        // The commits that wait are of before: they will be found in the log.
        sleep(RETRY_AFTER).await;
    }

    /// Starts at the log's present end.
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
            .others_until
            .is_some_and(|until| Instant::now() < until);
        let poll = if others_write { BUSY_POLL } else { IDLE_POLL };
        self.hub
            .shortest_interval()
            .map_or(poll, |wanted| wanted.min(poll))
    }
}
