//! Hours, days, weeks and months as people write them, in a time zone.

use jiff::tz::TimeZone;
use prost_types::Timestamp;

/// A length of time by which calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bucket {
    Hour,
    Day,
    Week,
    Month,
}

impl Bucket {
    /// The heading of a column of these.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Hour => "HOUR",
            Self::Day => "DAY",
            Self::Week => "WEEK OF",
            Self::Month => "MONTH",
        }
    }
}

/// Where a day begins.
#[derive(Debug, Clone)]
pub(super) struct Zone(TimeZone);

impl Zone {
    /// The zone of this name; UTC for one that only the service may know.
    pub(super) fn new(name: &str) -> Self {
        Self(TimeZone::get(name).unwrap_or(TimeZone::UTC))
    }

    /// What begins at this time: `2026-11-23 14:00`, with an offset if it is not
    /// UTC, `2026-11-23`, or `2026-11`.
    pub(super) fn name(&self, bucket: Bucket, start: Timestamp) -> String {
        let Ok(start) = jiff::Timestamp::new(start.seconds, start.nanos) else {
            return start.to_string();
        };
        let local = start.to_zoned_datetime(self.0.clone());
        let format = match bucket {
            // When clocks go back an hour comes twice.
            Bucket::Hour if self.0 != TimeZone::UTC => "%Y-%m-%d %H:%M%:z",
            Bucket::Hour => "%Y-%m-%d %H:%M",
            Bucket::Day | Bucket::Week => "%Y-%m-%d",
            Bucket::Month => "%Y-%m",
        };
        local.strftime(format).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_named_in_their_zone() {
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let (utc, berlin) = (Zone::new("UTC"), Zone::new("Europe/Berlin"));
        // The day after the clocks went back begins at 23:00 UTC.
        let day = at(1_792_969_200);
        assert_eq!(berlin.name(Bucket::Day, day), "2026-10-26");
        assert_eq!(utc.name(Bucket::Day, day), "2026-10-25");
        assert_eq!(utc.name(Bucket::Hour, day), "2026-10-25 23:00");
        assert_eq!(berlin.name(Bucket::Month, day), "2026-10");
        let twice = [1_792_886_400, 1_792_890_000].map(|hour| berlin.name(Bucket::Hour, at(hour)));
        assert_eq!(twice, ["2026-10-25 02:00+02:00", "2026-10-25 02:00+01:00"]);
    }
}
