//! How many snapshots are read at once: more wait in line, first come, first served. After a
//! FEED_RESET every consumer asks for one at the same time, and each one that has begun
//! holds a page and the calls that have changed since it began.
//!
//! The line moves on however slowly a client reads. While others wait, a client may keep its permit
//! for [`MAX_PAUSE`] without taking a page, and each page that it takes adds [`PAUSE_PER_PAGE`];
//! then the permit goes to the next in line, what the snapshot holds is dropped, and it ends with
//! [`SnapshotError::TooSlow`].

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout},
};

use super::{Snapshot, SnapshotError, UnsentCalls};
use crate::store::{LogError, Position, ReadError};

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

    /// Waits in line, and begins the snapshot's turn. This is a task of its own, because a stream
    /// is polled only while its client reads: one that does not must not keep its permit, nor
    /// those behind it from looking for others that do.
    async fn wait(self, snapshot: Snapshot, mut turn: oneshot::Sender<Arc<Turn>>) {
        let acquire = Arc::clone(&self.permits).acquire_owned();
        let mut acquire = std::pin::pin!(acquire);
        let permit = loop {
            tokio::select! {
                waited = timeout(LOOK_EVERY, acquire.as_mut()) => match waited {
                    Ok(Ok(permit)) => break permit,
                    // The semaphore is never closed.
                    Ok(Err(_)) => return,
                    Err(_) => self.end_slow_turns(),
                },
                () = turn.closed() => return,
            }
        };
        let held = Held {
            snapshot: Some(snapshot),
            unsent: UnsentCalls::default(),
            _permit: permit,
        };
        let begun = Arc::new(Turn(Mutex::new(TurnState::new(held, Instant::now()))));
        let mut under_way = lock(&self.under_way);
        under_way.retain(|turn| turn.strong_count() > 0);
        under_way.push(Arc::downgrade(&begun));
        drop(under_way);
        // If its client has gone, the permit goes to the next.
        drop(turn.send(begun));
    }

    fn end_slow_turns(&self) {
        let under_way: Vec<_> = lock(&self.under_way)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for turn in under_way {
            let ended = lock(&turn.0).end_if_slow(Instant::now());
            // Outside the lock: it may be large.
            drop(ended);
        }
    }
}

/// The turn of a snapshot.
struct Turn(Mutex<TurnState<Held>>);

/// What a snapshot holds during its turn.
struct Held {
    /// `None` while a page is read.
    snapshot: Option<Snapshot>,
    /// Calls that have been read, and not sent yet.
    unsent: UnsentCalls,
    _permit: OwnedSemaphorePermit,
}
/// How long the client of a turn may still pause. `H` is what is held until the turn ends.
struct TurnState<H> {
    /// `None` when the permit went to another one.
    held: Option<H>,
    pause_left: Duration,
    /// Since when the client has not taken a page; `None` while one is read.
    paused_at: Option<Instant>,
}

impl<H> TurnState<H> {
    /// A turn whose client has yet to ask for the first page.
    fn new(held: H, now: Instant) -> Self {
        Self {
            held: Some(held),
            pause_left: MAX_PAUSE,
            paused_at: Some(now),
        }
    }

    /// Returns what is no longer held.
    fn end_if_slow(&mut self, now: Instant) -> Option<H> {
        let is_slow = self.paused_at.is_some_and(|at| now - at > self.pause_left);
        self.held.take_if(|_| is_slow)
    }

    /// The client wants the next page.
    fn resume(&mut self, now: Instant) -> Result<&mut H, SnapshotError> {
        let held = self.held.as_mut().ok_or(SnapshotError::TooSlow)?;
        if let Some(paused_at) = self.paused_at.take() {
            let left = self.pause_left.saturating_sub(now - paused_at);
            self.pause_left = (left + PAUSE_PER_PAGE).min(MAX_PAUSE);
        }
        Ok(held)
    }

    /// The client has a page to take.
    fn pause(&mut self, now: Instant) {
        self.paused_at = Some(now);
    }
}

/// A snapshot that waits in line before its first page.
pub struct QueuedSnapshot {
    place: Place,
    position: Option<Position>,
}

enum Place {
    InLine(oneshot::Receiver<Arc<Turn>>),
    Turn(Arc<Turn>),
    /// What waited for the turn has ended with its runtime.
    Lost,
}

impl QueuedSnapshot {
    /// The snapshot, and the task that waits for its turn until this is dropped.
    pub(super) fn new(
        snapshot: Snapshot,
        queue: SnapshotQueue,
    ) -> (Self, impl Future<Output = ()>) {
        let (sender, turn) = oneshot::channel();
        let queued = Self {
            place: Place::InLine(turn),
            position: None,
        };
        (queued, queue.wait(snapshot, sender))
    }

    /// Waits until it is the snapshot's turn. Cancel-safe: it keeps its place in line.
    pub async fn turn(&mut self) {
        if let Place::InLine(turn) = &mut self.place {
            self.place = turn.await.map_or(Place::Lost, Place::Turn);
        }
    }

    /// Reads the next page, as [`Snapshot::next`] has it, once it is the snapshot's turn; false
    /// after the last. A read that is not waited for ends the snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn read(&mut self, deadline: Instant) -> Result<bool, SnapshotError> {
        const LOST: SnapshotError = SnapshotError::Log(LogError::Read(ReadError::Internal));
        self.turn().await;
        let Place::Turn(turn) = &self.place else {
            return Err(LOST);
        };
        let snapshot = lock(&turn.0).resume(Instant::now())?.snapshot.take();
        let mut snapshot = snapshot.ok_or(LOST)?;
        let page = snapshot.next(deadline).await;
        self.position = snapshot.position();
        let mut state = lock(&turn.0);
        let page = page?;
        let is_page = page.is_some();
        if let Some(held) = &mut state.held {
            held.snapshot = Some(snapshot);
            held.unsent = page.map(|page| page.calls).unwrap_or_default();
        }
        state.pause(Instant::now());
        Ok(is_page)
    }

    /// Takes of the calls that have been read, and not sent yet.
    ///
    /// # Errors
    /// The turn has ended, or what `take` fails with.
    pub fn take<T>(
        &self,
        take: impl FnOnce(&mut UnsentCalls) -> Result<T, SnapshotError>,
    ) -> Result<T, SnapshotError> {
        match &self.place {
            Place::Turn(turn) => match &mut lock(&turn.0).held {
                Some(held) => take(&mut held.unsent),
                None => Err(SnapshotError::TooSlow),
            },
            Place::InLine(_) | Place::Lost => take(&mut UnsentCalls::default()),
        }
    }

    /// The position of the snapshot; `None` before the first page.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn() -> (Arc<Semaphore>, TurnState<OwnedSemaphorePermit>) {
        let permits = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&permits).try_acquire_owned();
        let turn = TurnState::new(permit.expect("it is free"), Instant::now());
        (permits, turn)
    }

    #[test]
    fn a_turn_ends_for_the_next_in_line_when_its_client_never_asks_for_a_page() {
        let (permits, mut turn) = turn();
        let now = Instant::now();
        assert!(turn.end_if_slow(now + MAX_PAUSE - PAUSE_PER_PAGE).is_none());
        drop(turn.end_if_slow(now + MAX_PAUSE + PAUSE_PER_PAGE));
        assert_eq!(permits.available_permits(), 1);
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
        assert_eq!(late.err(), Some(SnapshotError::TooSlow));
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
            let has_turn = turn.resume(now).is_ok();
            turn.pause(now);
            now += 2 * PAUSE_PER_PAGE;
            turn.end_if_slow(now);
            has_turn
        });
        assert_eq!(pages.count(), 10);
    }
}
