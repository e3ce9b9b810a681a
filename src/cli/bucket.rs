//! Hours, days, weeks and months as text, in a time zone.

use jiff::tz::TimeZone;
use prost_types::Timestamp;

/// The unit of time that calls are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bucket {
    Hour,
    Day,
    Week,
    Month,
}

impl Bucket {
    /// The heading of its column.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Hour => "HOUR",
            Self::Day => "DAY",
            Self::Week => "WEEK OF",
            Self::Month => "MONTH",
        }
    }
}

/// The time zone in which days begin.
#[derive(Debug, Clone)]
pub(super) struct Zone(TimeZone);

impl Zone {
    /// The zone with this name; UTC for a name that is unknown here. The service refuses names
    /// that it does not know.
    pub(super) fn new(name: &str) -> Self {
        Self(TimeZone::get(name).unwrap_or(TimeZone::UTC))
    }

    /// The bucket that begins at `start`: `2026-11-23 14:00`, with an offset if the zone is not
    /// UTC, `2026-11-23`, or `2026-11`.
    pub(super) fn format(&self, bucket: Bucket, start: Timestamp) -> String {
        let Ok(start) = jiff::Timestamp::new(start.seconds, start.nanos) else {
            return start.to_string();
        };
        let local = start.to_zoned_datetime(self.0.clone());
        let format = match bucket {
            // The offset tells the two hours apart that occur when clocks go back.
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
        assert_eq!(berlin.format(Bucket::Day, day), "2026-10-26");
        assert_eq!(utc.format(Bucket::Day, day), "2026-10-25");
        assert_eq!(utc.format(Bucket::Hour, day), "2026-10-25 23:00");
        assert_eq!(berlin.format(Bucket::Month, day), "2026-10");
        let twice =
            [1_792_886_400, 1_792_890_000].map(|hour| berlin.format(Bucket::Hour, at(hour)));
        assert_eq!(twice, ["2026-10-25 02:00+02:00", "2026-10-25 02:00+01:00"]);
    }
}
