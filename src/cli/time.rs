//! Times as text, in RFC 3339.

use std::fmt;

use prost_types::Timestamp;

/// Formats a time in UTC with three fractional digits, or six if it has microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rfc3339(pub(super) Timestamp);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.nanos / 1_000;
        match jiff::Timestamp::new(self.0.seconds, micros * 1_000) {
            Ok(time) if micros % 1_000 == 0 => write!(formatter, "{time:.3}"),
            Ok(time) => write!(formatter, "{time:.6}"),
            // The service sends no time that is out of range.
            Err(_) => self.0.fmt(formatter),
        }
    }
}

/// Formats a time for a table: in UTC, to the second.
pub(super) fn to_the_second(time: Timestamp) -> String {
    let whole = Timestamp { nanos: 0, ..time }.to_string();
    whole.trim_end_matches('Z').replace('T', " ")
}

/// Formats a time for a narrow table: in UTC, to the minute.
pub(super) fn to_the_minute(time: Timestamp) -> String {
    let mut text = to_the_second(time);
    text.truncate(text.len().saturating_sub(3));
    text
}

/// Parses a time with its zone: `2021-07-20T14:00:00.000Z`, or with an offset such as `+02:00`.
pub(super) fn parse_exact(text: &str) -> Result<Timestamp, String> {
    let error = || "must be an RFC 3339 timestamp, such as \"2021-07-20T14:00:00.000Z\"".to_owned();
    let zone = text.get(19..).ok_or_else(error)?;
    let zone = match zone.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => zone,
    };
    let has_zone = match zone.as_bytes() {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', rest @ ..] => rest.len() == 5 && rest[2] == b':',
        _ => false,
    };
    let has_year = text.as_bytes()[0].is_ascii_digit();
    if !has_zone || !has_year {
        return Err(error());
    }
    text.parse().map_err(|_| error())
}

/// Parses a time as people type it: the zone and the time of day are optional, and default to
/// UTC and midnight.
pub(super) fn parse(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| {
        "must be a date or a time, such as 2026-11-23, \"2026-11-23 14:06:00\" (both UTC), \
         2026-11-23T14:06:00Z or 2026-11-23T15:06:00+01:00"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanos: i32) -> Timestamp {
        Timestamp { seconds, nanos }
    }

    #[test]
    fn fractions_have_three_digits_or_six() {
        for (nanos, text) in [
            (0, "2021-07-20T14:00:00.000Z"),
            (120_000_000, "2021-07-20T14:00:00.120Z"),
            (120_450_000, "2021-07-20T14:00:00.120450Z"),
            (1_000, "2021-07-20T14:00:00.000001Z"),
            (1_999, "2021-07-20T14:00:00.000001Z"),
        ] {
            assert_eq!(Rfc3339(at(1_626_789_600, nanos)).to_string(), text);
        }
        let first = Rfc3339(at(-62_135_596_800, 0)).to_string();
        assert_eq!(first, "0001-01-01T00:00:00.000Z");
        let last = Rfc3339(at(253_402_300_799, 999_999_000)).to_string();
        assert_eq!(last, "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn exact_times_have_a_zone() {
        for (text, time) in [
            ("2021-07-20T14:00:00.000Z", at(1_626_789_600, 0)),
            ("2021-07-20T14:00:00Z", at(1_626_789_600, 0)),
            ("2021-07-20t14:00:00.5z", at(1_626_789_600, 500_000_000)),
            ("2021-07-20T16:00:00.000001+02:00", at(1_626_789_600, 1_000)),
            ("2021-07-20T08:30:00-05:30", at(1_626_789_600, 0)),
        ] {
            assert_eq!(parse_exact(text), Ok(time), "{text}");
        }
        for text in [
            "",
            "2021",
            "2021-07-20",
            "2021-07-20T14:00:00",
            "2021-07-20T14:00Z",
            "2021-07-20T14:00:00+02",
            "2021-07-20T14:00:00+0200",
            "2021-02-30T14:00:00Z",
            "2021-07-20T14:00:00 Z",
            "20.07.2021 14:00:00Z",
            "+12021-07-20T14:00:00Z",
            "2021-07-20T14:00:00.Z",
            "ü021-07-20T14:00:00Z",
            "2021-07-20T25:00:00Z",
        ] {
            assert!(parse_exact(text).is_err(), "{text}");
        }
    }

    #[test]
    fn people_may_leave_out_the_zone_and_the_time_of_day() {
        for (text, seconds) in [
            ("2021-07-20", 1_626_739_200),
            ("2021-07-20 14:00:00", 1_626_789_600),
            ("2021-07-20T14:00:00", 1_626_789_600),
            ("2021-07-20T16:00:00+02:00", 1_626_789_600),
        ] {
            assert_eq!(parse(text), Ok(at(seconds, 0)), "{text}");
        }
        assert!(parse("yesterday").is_err());
    }
}
