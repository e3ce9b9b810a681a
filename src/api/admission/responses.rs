//! All responses that have not been written. Those of which no client takes anything are given
//! up: after 30 s, or after 60 s for a stream.
//!
//! A connection keeps the frame that it has until the client has room for it, and asks for the
//! next one only then, so a response cannot notice by itself that it is not taken.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::response_body::Unwritten;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks for which a frame of a unary response may wait for its client.
const MAX_IDLE: u32 = 30;
/// The same for a stream.
const MAX_STREAM_IDLE: u32 = 60;

/// See the module. Clones share it.
#[derive(Clone, Default)]
pub struct Responses(Arc<Mutex<Slots>>);

#[derive(Default)]
struct Slots {
    taken: Vec<Option<Arc<Shared>>>,
    free: Vec<usize>,
}

/// A response, as its connection and the look for idle ones share it.
pub(super) struct Shared {
    progress: Mutex<Progress>,
    is_stream: bool,
}

/// How far a response is.
pub(super) enum Progress {
    Unwritten {
        response: Unwritten,
        /// For how many looks its client has taken nothing; `None` while there is nothing to
        /// take.
        idle: Option<u32>,
    },
    /// The client took nothing for too long.
    GivenUp,
    Written,
}

impl Shared {
    pub(super) fn new(response: Unwritten, is_stream: bool) -> Self {
        Self {
            progress: Mutex::new(Progress::Unwritten {
                response,
                idle: Some(0),
            }),
            is_stream,
        }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        // A response whose stream has panicked is dropped by its connection.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it up if its client has taken nothing for too long.
    fn look(&self) {
        // One that is locked is being taken.
        let Ok(mut progress) = self.progress.try_lock() else {
            return;
        };
        let Progress::Unwritten {
            idle: Some(idle), ..
        } = &mut *progress
        else {
            return;
        };
        *idle += 1;
        let max = if self.is_stream {
            MAX_STREAM_IDLE
        } else {
            MAX_IDLE
        };
        if *idle > max {
            let given_up = mem::replace(&mut *progress, Progress::GivenUp);
            drop(progress);
            drop(given_up);
        }
    }
}

impl Responses {
    /// Gives up what is not taken, until `stop`.
    pub async fn watch_over(self, stop: CancellationToken) {
        let mut looks = interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            let responses: Vec<Arc<Shared>> =
                self.slots().taken.iter().flatten().cloned().collect();
            for response in responses {
                response.look();
            }
        }
    }

    pub(super) fn insert(&self, response: Arc<Shared>) -> usize {
        let mut slots = self.slots();
        match slots.free.pop() {
            Some(key) => {
                slots.taken[key] = Some(response);
                key
            }
            None => {
                slots.taken.push(Some(response));
                slots.taken.len() - 1
            }
        }
    }

    pub(super) fn remove(&self, key: usize) {
        let mut slots = self.slots();
        let removed = slots.taken.get_mut(key).and_then(Option::take);
        slots.free.push(key);
        drop(slots);
        // Outside the lock: it may be the last to hold a stream.
        drop(removed);
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
