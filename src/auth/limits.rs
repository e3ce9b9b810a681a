//! How much a principal may have at once, and how fast its requests may come.
//!
//! It deliberately knows nothing of what is counted: `api::admission` counts.

use std::{fmt, num::NonZeroU32};

/// The limits of a principal; `None`: no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Limits {
    /// Requests in progress.
    pub requests: Option<NonZeroU32>,
    /// Watches.
    pub watches: Option<NonZeroU32>,
    /// Imports, exports and requests for statistics.
    pub transfers: Option<NonZeroU32>,
    /// How fast requests may come.
    pub rate: Option<Rate>,
}

/// How fast requests may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Requests a second.
    pub per_second: NonZeroU32,
    /// Requests at once after a pause.
    pub burst: NonZeroU32,
}

impl Rate {
    /// A rate; without a burst, the requests of a second may come at once.
    #[must_use]
    pub fn new(per_second: NonZeroU32, burst: Option<NonZeroU32>) -> Self {
        Self {
            per_second,
            burst: burst.unwrap_or(per_second),
        }
    }
}

impl Limits {
    /// These limits, and the others where there are none.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            requests: self.requests.or(others.requests),
            watches: self.watches.or(others.watches),
            transfers: self.transfers.or(others.transfers),
            rate: self.rate.or(others.rate),
        }
    }

    /// Whether there is no limit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.requests, "requests in progress"),
            (self.watches, "watches"),
            (self.transfers, "transfers"),
        ];
        let counts = counts.into_iter().filter_map(|(count, what)| {
            let count = count?;
            Some(format!("{count} {what}"))
        });
        let rate = self.rate.map(|Rate { per_second, burst }| {
            format!("{per_second} requests a second ({burst} at once after a pause)")
        });
        let all: Vec<_> = counts.chain(rate).collect();
        formatter.write_str(if all.is_empty() { "none" } else { "" })?;
        formatter.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_replaces_a_default_and_leaves_the_others() {
        let count = |count| Some(NonZeroU32::new(count).expect("not zero"));
        let rate = |per_second, burst| {
            Some(Rate::new(
                NonZeroU32::new(per_second).expect("not zero"),
                count(burst),
            ))
        };
        let defaults = Limits {
            requests: count(8),
            watches: count(4),
            transfers: None,
            rate: rate(100, 200),
        };
        let exception = Limits {
            watches: count(10),
            transfers: count(2),
            rate: rate(5, 7),
            ..Limits::default()
        };
        let merged = exception.or(defaults);
        assert_eq!(
            merged.to_string(),
            "8 requests in progress, 10 watches, 2 transfers, 5 requests a second (7 at once \
             after a pause)"
        );
        let all = Limits {
            requests: count(1),
            ..merged
        };
        assert_eq!(all.or(defaults), all);
        assert_eq!(Limits::default().or(defaults), defaults);
        assert!(Limits::default().is_empty() && !exception.is_empty());
        assert_eq!(Limits::default().to_string(), "none");
    }
}
