//! Lines in the log that would come with every request, every now and then.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Between two lines of one kind.
const EVERY: Duration = Duration::from_secs(10);

/// One kind of line. Clones share it.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Throttle(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    said_at: Option<Instant>,
    /// What was not said since.
    kept_back: u64,
}

impl Throttle {
    /// Whether the line may be said now, and how many of its kind were kept back before.
    pub(in crate::store) fn may_say(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state
            .said_at
            .is_some_and(|at| now.saturating_duration_since(at) < EVERY)
        {
            state.kept_back += 1;
            return None;
        }
        state.said_at = Some(now);
        Some(std::mem::take(&mut state.kept_back))
    }
}
