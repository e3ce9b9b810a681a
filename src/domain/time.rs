//! Points in time, as the API and PostgreSQL both hold them: whole microseconds.

/// A point in time between the years 1 and 9999, in microseconds since
/// 1970-01-01T00:00:00Z: the range of `google.protobuf.Timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Why a time is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Before the year 1 or after the year 9999.
    #[error("must be between the years 1 and 9999")]
    OutOfRange,
    /// The nanoseconds are not a fraction of a second.
    #[error("nanos must be between 0 and 999999999")]
    BadNanos,
}

const MICROS_PER_SECOND: i64 = 1_000_000;
const MIN_SECONDS: i64 = -62_135_596_800;
const MAX_SECONDS: i64 = 253_402_300_799;

impl Timestamp {
    /// The earliest time there is.
    pub const MIN: Self = Self(MIN_SECONDS * MICROS_PER_SECOND);
    /// The latest time there is.
    pub const MAX: Self = Self(MAX_SECONDS * MICROS_PER_SECOND + MICROS_PER_SECOND - 1);

    /// The time at `micros` microseconds since 1970.
    ///
    /// # Errors
    /// [`TimeError::OutOfRange`].
    pub fn from_micros(micros: i64) -> Result<Self, TimeError> {
        let time = Self(micros);
        if (Self::MIN..=Self::MAX).contains(&time) {
            Ok(time)
        } else {
            Err(TimeError::OutOfRange)
        }
    }

    /// The time at `micros` microseconds since 1970, or the nearest there is.
    #[must_use]
    pub fn clamped(micros: i64) -> Self {
        Self(micros).clamp(Self::MIN, Self::MAX)
    }

    /// The time at `seconds` since 1970 and `nanos` nanoseconds after that;
    /// what is finer than a microsecond is truncated.
    ///
    /// # Errors
    /// [`TimeError`], as its variants say.
    pub fn from_parts(seconds: i64, nanos: i32) -> Result<Self, TimeError> {
        if !(0..1_000_000_000).contains(&nanos) {
            return Err(TimeError::BadNanos);
        }
        if !(MIN_SECONDS..=MAX_SECONDS).contains(&seconds) {
            return Err(TimeError::OutOfRange);
        }
        Ok(Self(seconds * MICROS_PER_SECOND + i64::from(nanos) / 1_000))
    }

    /// Microseconds since 1970.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, rounded down, and the nanoseconds after them.
    #[must_use]
    pub fn parts(self) -> (i64, i32) {
        let nanos = self.0.rem_euclid(MICROS_PER_SECOND) * 1_000;
        let nanos = i32::try_from(nanos).unwrap_or(0);
        (self.0.div_euclid(MICROS_PER_SECOND), nanos)
    }

    /// The time `micros` later, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn plus_micros(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros).min(Self::MAX.0))
    }
}

/// A time in a change that is not committed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingTime {
    /// This one.
    Known(Timestamp),
    /// That of the commit, which only the database knows.
    AtCommit,
}

impl PendingTime {
    /// The time if it is given, and that of the commit if it is not.
    #[must_use]
    pub fn known_or_commit(time: Option<Timestamp>) -> Self {
        time.map_or(Self::AtCommit, Self::Known)
    }

    /// The time, given that of the commit.
    #[must_use]
    pub const fn resolve(self, committed_at: Timestamp) -> Timestamp {
        match self {
            Self::Known(time) => time,
            Self::AtCommit => committed_at,
        }
    }
}

impl From<Timestamp> for PendingTime {
    fn from(time: Timestamp) -> Self {
        Self::Known(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finer_than_a_microsecond_is_truncated_also_before_1970() {
        for (seconds, nanos, micros) in [
            (0, 1_999, 1),
            (1, 999_999_999, 1_999_999),
            (-1, 999_999_999, -1),
            (-1, 1_000, -999_999),
        ] {
            let time = Timestamp::from_parts(seconds, nanos).expect("in range");
            assert_eq!(time.micros(), micros);
            assert_eq!(time.parts(), (seconds, nanos / 1_000 * 1_000));
        }
    }

    #[test]
    fn the_bounds_are_those_of_the_protobuf_type() {
        assert!(Timestamp::from_parts(MIN_SECONDS, 0).is_ok());
        assert!(Timestamp::from_parts(MIN_SECONDS - 1, 0).is_err());
        assert!(Timestamp::from_parts(MAX_SECONDS, 999_999_999).is_ok());
        assert!(Timestamp::from_parts(MAX_SECONDS + 1, 0).is_err());
        assert!(Timestamp::from_parts(0, -1).is_err());
        assert!(Timestamp::from_parts(0, 1_000_000_000).is_err());
        assert!(Timestamp::from_micros(i64::MAX).is_err());
        assert!(Timestamp::from_micros(i64::MIN).is_err());
    }
}
