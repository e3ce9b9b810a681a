//! The time, with evidence: a clock that steps is not believed at once.
//!
//! Two clocks are watched, the system's and the database's. What each says is compared with
//! what it said before and the time that has passed since, which no setting of a clock
//! changes. While they differ, the time goes on as it was; a difference that lasts is
//! believed: the clock was wrong before, or the machine slept.
//!
//! The log goes by the database's clock, because all replicas have that in common. Each commit
//! brings along what is believed of it, and `commit_batch_v1` decides the time of the commit: at
//! most 5 s from that, and never before the last one. Retention and the 24 hours of request ids
//! go by a time of their own, which a process must have been sure of for a while.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tracing::warn;

use crate::domain::Timestamp;

/// What a clock may be off by without having stepped: it is slewed, and read late.
const NO_STEP_MICROS: i64 = 1_000_000;
const NO_STEP: Duration = Duration::from_secs(1);
/// After how long another time is believed.
const BELIEVED_AFTER: Duration = Duration::from_secs(15 * 60);
/// By how much the database's clock may differ from ours when they are first compared.
const MAX_DIFFERENCE_MICROS: u64 = 15 * 60 * 1_000_000;

/// The time. Clones share it.
#[derive(Debug, Clone)]
pub(in crate::store) struct Clock(Arc<Mutex<Clocks>>);

#[derive(Debug)]
struct Clocks {
    system: Steady,
    /// `None` until the database was asked.
    database: Option<Steady>,
    started_at: Instant,
    /// The log's time when it was first seen, and when that was.
    log: Option<Steady>,
}

impl Clock {
    pub(in crate::store) fn new() -> Self {
        Self(Arc::new(Mutex::new(Clocks {
            system: Steady::new("system", system_micros(), Instant::now()),
            database: None,
            started_at: Instant::now(),
            log: None,
        })))
    }

    /// The time by which the log goes: the database's, as far as it is believed.
    pub(in crate::store) fn log_now(&self) -> Timestamp {
        let mut clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let system = clocks.system.read(system_micros(), now);
        let database = clocks.database.as_ref();
        Timestamp::clamped(database.map_or(system, |database| database.goes_on(now)))
    }

    /// The time by which what is kept expires. A process that has just started cannot tell a
    /// clock that is ahead from a log that was left alone: until it can, time passes from
    /// the log's own on, so that nothing is forgotten or dropped too early.
    pub(in crate::store) fn expiry_now(&self) -> Timestamp {
        let log_now = self.log_now();
        let clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_young = now.saturating_duration_since(clocks.started_at) < BELIEVED_AFTER;
        match &clocks.log {
            Some(log) if is_young => log_now.min(Timestamp::clamped(log.goes_on(now))),
            _ => log_now,
        }
    }

    /// Takes note of the log's time, if it is the first that is seen.
    pub(in crate::store) fn log_says(&self, time: Timestamp) {
        let mut clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clocks
            .log
            .get_or_insert_with(|| Steady::new("log", time.micros(), Instant::now()));
    }

    /// Takes note of what the database's clock said since `asked_at`. A response that took
    /// as long as a step is not looked at: a commit reads the clock before it waits for its
    /// standby.
    pub(in crate::store) fn database_says(&self, clock: Timestamp, asked_at: Instant) {
        let mut clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now.saturating_duration_since(asked_at) >= NO_STEP {
            return;
        }
        let system = clocks.system.read(system_micros(), now);
        if let Some(database) = &mut clocks.database {
            database.read(clock.micros(), now);
            return;
        }
        let log = clocks.log.as_ref().map(|log| log.goes_on(now));
        let first = first_believed(clock.micros(), system, log);
        if first != clock.micros() {
            let difference = clock.micros().saturating_sub(system) / 1_000_000;
            warn!("the database's clock is {difference} s ahead of ours and is not believed yet");
        }
        let mut database = Steady::new("database", first, now);
        database.read(clock.micros(), now);
        clocks.database = Some(database);
    }
}

/// Which time is believed when the database's clock is first compared with ours. If they
/// contradict each other, the one nearer to the log's time is right: ours may be the wrong one, and
/// the log's time never comes back from a time that is far ahead.
fn first_believed(database: i64, system: i64, log: Option<i64>) -> i64 {
    if database.abs_diff(system) <= MAX_DIFFERENCE_MICROS {
        return database;
    }
    match log {
        Some(log) if database.abs_diff(log) < system.abs_diff(log) => database,
        Some(_) => system,
        None => database.min(system),
    }
}

/// A clock that does not step.
#[derive(Debug)]
struct Steady {
    /// Whose it is.
    name: &'static str,
    /// The time at some instant.
    micros: i64,
    at: Instant,
    /// Since when another time is read.
    stepped_at: Option<Instant>,
}

impl Steady {
    fn new(name: &'static str, micros: i64, at: Instant) -> Self {
        Self {
            name,
            micros,
            at,
            stepped_at: None,
        }
    }

    /// The time, without a look at the clock.
    fn goes_on(&self, now: Instant) -> i64 {
        let passed = now.saturating_duration_since(self.at);
        let passed = i64::try_from(passed.as_micros()).unwrap_or(i64::MAX);
        self.micros.saturating_add(passed)
    }

    /// The time, where the clock says `micros`.
    fn read(&mut self, micros: i64, now: Instant) -> i64 {
        let steady = self.goes_on(now);
        let step = micros.saturating_sub(steady);
        if step.abs() <= NO_STEP_MICROS {
            (self.micros, self.at, self.stepped_at) = (micros, now, None);
            return micros;
        }
        let name = self.name;
        let stepped_at = *self.stepped_at.get_or_insert_with(|| {
            let seconds = step / 1_000_000;
            warn!("the {name}'s clock has stepped by {seconds} s and is not believed yet");
            now
        });
        if now.saturating_duration_since(stepped_at) < BELIEVED_AFTER {
            return steady;
        }
        warn!("the {name}'s clock is believed again");
        (self.micros, self.at, self.stepped_at) = (micros, now, None);
        micros
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

    fn state(at: Instant) -> Steady {
        Steady::new("test", 100 * SECOND, at)
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
    fn a_response_that_took_as_long_as_a_step_is_no_step() {
        let clock = Clock::new();
        let now = Timestamp::clamped(system_micros());
        clock.database_says(now, Instant::now());
        let late = Timestamp::clamped(now.micros() - 5 * SECOND);
        let is_behind = |clock: &Clock| {
            let clocks = clock.0.lock().expect("no panic here");
            clocks
                .database
                .as_ref()
                .is_some_and(|it| it.stepped_at.is_some())
        };
        clock.database_says(late, Instant::now() - Duration::from_secs(5));
        assert!(!is_behind(&clock));
        clock.database_says(late, Instant::now());
        assert!(is_behind(&clock));
    }

    #[test]
    fn of_two_clocks_that_contradict_each_other_the_one_near_the_log_is_believed() {
        const DAY: i64 = 24 * 3600 * SECOND;
        let (right, ahead, behind) = (100 * DAY, 200 * DAY, 50 * DAY);
        let (fresh, old) = (Some(right - SECOND), Some(90 * DAY));
        for log in [fresh, old] {
            assert_eq!(first_believed(right, ahead, log), right);
            assert_eq!(first_believed(right, behind, log), right);
            assert_eq!(first_believed(ahead, right, log), right);
            assert_eq!(first_believed(behind, right, log), right);
        }
        // Without a log the earlier one, which does the less harm.
        assert_eq!(first_believed(right, ahead, None), right);
        assert_eq!(first_believed(ahead, right, None), right);
        // They agree well enough.
        assert_eq!(first_believed(right, right + SECOND, None), right);
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
