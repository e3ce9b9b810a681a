//! The time, with evidence: a clock that steps is not believed at once.
//!
//! The system's clock is compared with the time that has passed since it was read before,
//! which no setting of the clock changes. While they differ, the time goes on as it was; a
//! difference that lasts is believed: the clock was wrong before, or the machine slept.
//!
//! The database's clock has the same said of it by the commit, which takes this time as
//! evidence.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tracing::warn;

use crate::domain::Timestamp;

/// What the clock may be off by without having stepped: it is slewed, and read late.
const NO_STEP_MICROS: i64 = 1_000_000;
/// After how long another time is believed.
const BELIEVED_AFTER: Duration = Duration::from_secs(15 * 60);
/// How far ahead the database's clock may be and still be right; `commit_batch_v2` has the
/// same.
const MAX_AHEAD_MICROS: i64 = 15 * 60 * 1_000_000;

/// The time. Clones share it.
#[derive(Debug, Clone)]
pub(in crate::store) struct Clock(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// The time at some instant.
    micros: i64,
    at: Instant,
    /// Since when the system's clock tells another time.
    stepped_at: Option<Instant>,
    /// By how much the database's clock is ahead.
    database_ahead: i64,
}

impl Clock {
    pub(in crate::store) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            micros: system_micros(),
            at: Instant::now(),
            stepped_at: None,
            database_ahead: 0,
        })))
    }

    /// The time as this process knows it.
    pub(in crate::store) fn now(&self) -> Timestamp {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Timestamp::clamped(state.read(system_micros(), Instant::now()))
    }

    /// The time by which the log goes: the database's, as far as it is believed.
    pub(in crate::store) fn log_now(&self) -> Timestamp {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = state.read(system_micros(), Instant::now());
        let ahead = state.database_ahead.min(MAX_AHEAD_MICROS);
        Timestamp::clamped(now.saturating_add(ahead))
    }

    /// Takes note of what the database's clock says just now.
    pub(in crate::store) fn database_says(&self, clock: Timestamp) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = state.read(system_micros(), Instant::now());
        let before = state.database_ahead;
        state.database_ahead = clock.micros().saturating_sub(now);
        let is_implausible = state.database_ahead > MAX_AHEAD_MICROS;
        if is_implausible && before <= MAX_AHEAD_MICROS {
            warn!(
                "the database's clock is {} s ahead and is not believed: times in the log \
                 follow it for a quarter of an hour at most",
                state.database_ahead / 1_000_000
            );
        }
    }
}

impl State {
    /// The time, where the system's clock says `system` at `now`.
    fn read(&mut self, system: i64, now: Instant) -> i64 {
        let passed = now.saturating_duration_since(self.at);
        let passed = i64::try_from(passed.as_micros()).unwrap_or(i64::MAX);
        let steady = self.micros.saturating_add(passed);
        let step = system.saturating_sub(steady);
        if step.abs() <= NO_STEP_MICROS {
            (self.micros, self.at, self.stepped_at) = (system, now, None);
            return system;
        }
        let stepped_at = *self.stepped_at.get_or_insert_with(|| {
            warn!(
                "the system's clock has stepped by {} s and is not believed yet",
                step / 1_000_000
            );
            now
        });
        if now.saturating_duration_since(stepped_at) < BELIEVED_AFTER {
            return steady;
        }
        warn!("the system's clock is believed again");
        (self.micros, self.at, self.stepped_at) = (system, now, None);
        system
    }
}

fn system_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.map(|since| since.as_micros()).unwrap_or_default();
    i64::try_from(micros).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn state(at: Instant) -> State {
        State {
            micros: 100 * SECOND,
            at,
            stepped_at: None,
            database_ahead: 0,
        }
    }

    #[test]
    fn a_clock_that_is_slewed_is_followed() {
        let start = Instant::now();
        let mut state = state(start);
        let after = start + Duration::from_secs(10);
        assert_eq!(
            state.read(110 * SECOND + 400_000, after),
            110 * SECOND + 400_000
        );
    }

    #[test]
    fn a_step_is_believed_when_it_lasts() {
        let start = Instant::now();
        let mut state = state(start);
        for seconds in [1_u32, 60, 800] {
            let now = start + Duration::from_secs(seconds.into());
            let steady = (100 + i64::from(seconds)) * SECOND;
            assert_eq!(state.read(steady + 144_000 * SECOND, now), steady);
        }
        let now = start + Duration::from_secs(902);
        let stepped = (100 + 902 + 144_000) * SECOND;
        assert_eq!(state.read(stepped, now), stepped);
    }

    #[test]
    fn a_step_that_is_taken_back_leaves_nothing() {
        let start = Instant::now();
        let mut state = state(start);
        let now = start + Duration::from_secs(1);
        assert_eq!(state.read(0, now), 101 * SECOND);
        let now = start + Duration::from_secs(2);
        assert_eq!(state.read(102 * SECOND, now), 102 * SECOND);
        assert!(state.stepped_at.is_none());
    }
}
