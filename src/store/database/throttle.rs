//! Lines in the log that would come with every request: every now and then, and when they
//! say something else.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Between two lines that say the same, by default.
const EVERY: Duration = Duration::from_secs(10);

/// One kind of line. Clones share it.
#[derive(Debug, Clone)]
pub(in crate::store) struct Throttle {
    every: Duration,
    state: Arc<Mutex<ThrottleState>>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self::every(EVERY)
    }
}

#[derive(Debug, Default)]
struct ThrottleState {
    said_at: Option<Instant>,
    said: String,
    /// What was not said since.
    kept_back: u64,
}

impl Throttle {
    pub(in crate::store) fn every(every: Duration) -> Self {
        Self {
            every,
            state: Arc::default(),
        }
    }

    /// Whether the line may be said now, and how many of its kind were kept back before.
    pub(in crate::store) fn may_say(&self, line: &str) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_recent = |at| now.saturating_duration_since(at) < self.every;
        if state.said == line && state.said_at.is_some_and(is_recent) {
            state.kept_back += 1;
            return None;
        }
        state.said_at = Some(now);
        line.clone_into(&mut state.said);
        Some(std::mem::take(&mut state.kept_back))
    }
}
