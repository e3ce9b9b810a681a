//! How many snapshots are read at once: more wait in line, first come, first served. After a
//! FEED_RESET every consumer asks for one at the same time, and each one that has begun
//! holds a page and the calls that have changed since it began.
//!
//! The line moves on however slowly a client reads. While others wait, a client may keep its
//! permit for [`MAX_PAUSE`] without taking a page, and each page that it takes adds
//! [`PAUSE_PER_PAGE`]; then the permit goes to the next in line, and the snapshot ends with
//! [`SnapshotError::TooSlow`].

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{Snapshot, SnapshotError, SnapshotPage};
use crate::store::Position;

/// How long a client may pause in all, at first and at most.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// What it may pause after each further page.
const PAUSE_PER_PAGE: Duration = Duration::from_secs(1);
/// How often those in line look for a client that has paused for too long.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// See the module. Clones share the line.
#[derive(Debug, Clone)]
pub(super) struct SnapshotQueue {
    permits: Arc<Semaphore>,
    /// The snapshots that have begun.
    under_way: Arc<Mutex<Vec<Weak<Turn>>>>,
}

impl SnapshotQueue {
    pub(super) fn new(max_snapshots: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max_snapshots)),
            under_way: Arc::default(),
        }
    }

    /// Waits in line.
    async fn turn(self) -> Arc<Turn> {
        let acquire = Arc::clone(&self.permits).acquire_owned();
        let mut acquire = std::pin::pin!(acquire);
        let permit = loop {
            match timeout(LOOK_EVERY, acquire.as_mut()).await {
                // The semaphore is never closed.
                Ok(permit) => break permit.ok(),
                Err(_) => self.end_slow_turns(),
            }
        };
        let turn = Arc::new(Turn(Mutex::new(TurnState::new(permit))));
        let mut under_way = lock(&self.under_way);
        under_way.retain(|turn| turn.strong_count() > 0);
        under_way.push(Arc::downgrade(&turn));
        drop(under_way);
        turn
    }

    fn end_slow_turns(&self) {
        for turn in lock(&self.under_way).iter().filter_map(Weak::upgrade) {
            lock(&turn.0).end_if_slow(Instant::now());
        }
    }
}

/// The turn of a snapshot: its permit, and how long its client may still pause.
#[derive(Debug)]
struct Turn(Mutex<TurnState>);

#[derive(Debug)]
struct TurnState {
    /// `None` when it went to another one.
    permit: Option<OwnedSemaphorePermit>,
    pause_left: Duration,
    /// Since when the client has not taken a page; `None` while one is read.
    paused_at: Option<Instant>,
}

impl TurnState {
    fn new(permit: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            permit,
            pause_left: MAX_PAUSE,
            paused_at: None,
        }
    }

    fn end_if_slow(&mut self, now: Instant) {
        if self.paused_at.is_some_and(|at| now - at > self.pause_left) {
            self.permit = None;
        }
    }

    /// The client wants the next page.
    fn resume(&mut self, now: Instant) -> Result<(), SnapshotError> {
        if self.permit.is_none() {
            return Err(SnapshotError::TooSlow);
        }
        if let Some(paused_at) = self.paused_at.take() {
            let left = self.pause_left.saturating_sub(now - paused_at);
            self.pause_left = (left + PAUSE_PER_PAGE).min(MAX_PAUSE);
        }
        Ok(())
    }

    /// The client has a page to take.
    fn pause(&mut self, now: Instant) {
        self.paused_at = Some(now);
    }
}

/// A snapshot that waits in line before its first page.
pub struct QueuedSnapshot {
    snapshot: Snapshot,
    place: Place,
}

enum Place {
    InLine(BoxFuture<'static, Arc<Turn>>),
    Turn(Arc<Turn>),
}

impl QueuedSnapshot {
    pub(super) fn new(snapshot: Snapshot, queue: SnapshotQueue) -> Self {
        Self {
            snapshot,
            place: Place::InLine(Box::pin(queue.turn())),
        }
    }

    /// Waits until it is the snapshot's turn. Cancel-safe: it keeps its place in line.
    pub async fn turn(&mut self) {
        if let Place::InLine(turn) = &mut self.place {
            self.place = Place::Turn(turn.await);
        }
    }

    /// The next page, as [`Snapshot::next`] has it, once it is the snapshot's turn.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn next(&mut self, deadline: Instant) -> Result<Option<SnapshotPage>, SnapshotError> {
        self.turn().await;
        let Place::Turn(turn) = &self.place else {
            return Ok(None);
        };
        lock(&turn.0).resume(Instant::now())?;
        let page = self.snapshot.next(deadline).await;
        lock(&turn.0).pause(Instant::now());
        page
    }

    /// The position of the snapshot; `None` before the first page.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.snapshot.position()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn() -> (Arc<Semaphore>, TurnState) {
        let permits = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&permits).try_acquire_owned();
        let turn = TurnState::new(Some(permit.expect("it is free")));
        (permits, turn)
    }

    #[test]
    fn a_turn_ends_for_the_next_in_line_when_its_client_takes_nothing() {
        let (permits, mut turn) = turn();
        let now = Instant::now();
        turn.resume(now).expect("it has its turn");
        turn.pause(now);
        turn.end_if_slow(now + MAX_PAUSE);
        assert_eq!(permits.available_permits(), 0);
        turn.end_if_slow(now + MAX_PAUSE + PAUSE_PER_PAGE);
        assert_eq!(permits.available_permits(), 1);
        let late = turn.resume(now + MAX_PAUSE + PAUSE_PER_PAGE);
        assert_eq!(late, Err(SnapshotError::TooSlow));
    }

    #[test]
    fn a_turn_lasts_while_a_page_is_read_and_while_its_client_takes_a_page_a_second() {
        let (permits, mut turn) = turn();
        let mut now = Instant::now();
        for _ in 0..100 {
            turn.resume(now).expect("it has its turn");
            now += 10 * MAX_PAUSE;
            turn.end_if_slow(now);
            turn.pause(now);
            now += PAUSE_PER_PAGE;
            turn.end_if_slow(now);
        }
        assert_eq!(permits.available_permits(), 0);
    }

    #[test]
    fn a_turn_ends_when_its_client_goes_on_too_slowly() {
        let (_permits, mut turn) = turn();
        let mut now = Instant::now();
        let pages = (0..100).take_while(|_| {
            let resumed = turn.resume(now);
            turn.pause(now);
            now += 2 * PAUSE_PER_PAGE;
            turn.end_if_slow(now);
            resumed.is_ok()
        });
        assert_eq!(pages.count(), 10);
    }
}
