//! What each principal with limits has in progress, over all its connections, and how fast its
//! requests come.
//!
//! Principals without limits are not looked at. One that has nothing in progress, and whose rate
//! is as if it had never called, is forgotten: what is known of it would change nothing.
//!
//! Two entries of the policy file that give one name different limits are counted apart, and so
//! are the requests before and after a change of the limits.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock};

use crate::{
    api::error::{Error, ReachedLimit},
    auth::{Limits, Rate},
};

/// Principals that are known before those that have gone are first looked for.
const MIN_SWEEP_AT: usize = 1024;
/// With more, also those are forgotten whose rate has not recovered, but that have nothing in
/// progress: a few megabytes.
const MAX_RECOVERING: usize = 16 * 1024;

/// See the module.
pub(super) struct Principals {
    /// The limits of principals that have none of their own.
    defaults: Limits,
    known: Mutex<Known>,
}

struct Known {
    usages: HashMap<(Arc<str>, Limits), Entry>,
    /// How many there may be until those that have gone are forgotten.
    sweep_at: usize,
}

struct Entry {
    usage: Arc<Usage>,
    used_at: Instant,
}

/// What one principal has in progress. Each of it holds a reference.
struct Usage {
    limits: Limits,
    requests: AtomicU32,
    watches: AtomicU32,
    transfers: AtomicU32,
    rate: Option<(Rate, DefaultDirectRateLimiter)>,
}

/// What a request counts as.
#[derive(Default)]
pub(in crate::api) struct Counted {
    pub(super) request: Option<Count>,
    pub(super) watch_or_transfer: Option<Count>,
}

/// One that is in progress, until this is dropped.
pub(in crate::api) struct Count {
    usage: Arc<Usage>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Watch,
    Transfer,
}

impl Kind {
    /// What a request for this RPC counts as besides a request.
    fn of_rpc(rpc: &str) -> Option<Self> {
        match rpc {
            "WatchVoiceCalls" => Some(Self::Watch),
            "ImportVoiceCalls" | "ExportVoiceCalls" | "GetVoiceCallStats" => Some(Self::Transfer),
            _ => None,
        }
    }
}

impl Principals {
    pub(super) fn new(defaults: Limits) -> Self {
        Self {
            defaults,
            known: Mutex::new(Known {
                usages: HashMap::new(),
                sweep_at: MIN_SWEEP_AT,
            }),
        }
    }

    /// Counts a request for this RPC by the principal with this name, whose own limits come before
    /// the defaults.
    pub(super) fn count(&self, name: &Arc<str>, own: Limits, rpc: &str) -> Result<Counted, Error> {
        let limits = own.or(self.defaults);
        if limits.is_empty() {
            return Ok(Counted::default());
        }
        let usage = self.usage(name, limits);
        let watch_or_transfer = Kind::of_rpc(rpc).map(|kind| usage.count(kind));
        let watch_or_transfer = watch_or_transfer.transpose()?.flatten();
        let request = usage.count(Kind::Request)?;
        // Last, because what is refused above has not used any of it.
        usage.check_rate()?;
        Ok(Counted {
            request,
            watch_or_transfer,
        })
    }

    fn usage(&self, name: &Arc<str>, limits: Limits) -> Arc<Usage> {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(name), limits);
        if let Some(entry) = known.usages.get_mut(&key) {
            entry.used_at = now;
            return Arc::clone(&entry.usage);
        }
        if known.usages.len() >= known.sweep_at {
            known.forget_gone(now);
        }
        let usage = Arc::new(Usage::new(limits));
        let entry = Entry {
            usage: Arc::clone(&usage),
            used_at: now,
        };
        known.usages.insert(key, entry);
        usage
    }
}

impl Known {
    /// Forgets those of which nothing has to be known. A sweep is paid for by as many new
    /// principals as it leaves.
    fn forget_gone(&mut self, now: Instant) {
        self.usages
            .retain(|_, entry| entry.is_in_progress() || !entry.has_recovered(now));
        if self.usages.len() > MAX_RECOVERING {
            self.usages.retain(|_, entry| entry.is_in_progress());
        }
        self.sweep_at = MIN_SWEEP_AT.max(2 * self.usages.len());
        self.usages.shrink_to(self.sweep_at);
    }
}

impl Entry {
    /// Whether anything else refers to the usage, which happens only under the lock.
    fn is_in_progress(&self) -> bool {
        Arc::strong_count(&self.usage) > 1
    }

    fn has_recovered(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.used_at);
        since >= self.usage.recovery()
    }
}

impl Usage {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            requests: AtomicU32::new(0),
            watches: AtomicU32::new(0),
            transfers: AtomicU32::new(0),
            rate: limits
                .rate
                .map(|rate| (rate, RateLimiter::direct(quota(rate)))),
        }
    }

    /// Counts one of this kind; `None` if there is no limit.
    fn count(self: &Arc<Self>, kind: Kind) -> Result<Option<Count>, Error> {
        let Some(limit) = self.limit(kind) else {
            return Ok(None);
        };
        let order = Ordering::Relaxed;
        let add = |count: u32| (count < limit.get()).then_some(count + 1);
        if self.counter(kind).fetch_update(order, order, add).is_err() {
            return Err(Error::RateLimited(match kind {
                Kind::Request => ReachedLimit::Requests(limit),
                Kind::Watch => ReachedLimit::Watches(limit),
                Kind::Transfer => ReachedLimit::Transfers(limit),
            }));
        }
        Ok(Some(Count {
            usage: Arc::clone(self),
            kind,
        }))
    }

    fn check_rate(&self) -> Result<(), Error> {
        let Some((rate, limiter)) = &self.rate else {
            return Ok(());
        };
        limiter.check().map_err(|not_until| {
            Error::RateLimited(ReachedLimit::Rate {
                per_second: rate.per_second,
                retry_after: not_until.wait_time_from(limiter.clock().now()),
            })
        })
    }

    /// How long after its last request the principal may send a whole burst again.
    fn recovery(&self) -> Duration {
        let rate = self.limits.rate.map(quota);
        rate.map_or(Duration::ZERO, |quota| quota.burst_size_replenished_in())
    }

    fn limit(&self, kind: Kind) -> Option<NonZeroU32> {
        match kind {
            Kind::Request => self.limits.requests,
            Kind::Watch => self.limits.watches,
            Kind::Transfer => self.limits.transfers,
        }
    }

    fn counter(&self, kind: Kind) -> &AtomicU32 {
        match kind {
            Kind::Request => &self.requests,
            Kind::Watch => &self.watches,
            Kind::Transfer => &self.transfers,
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let counter = self.usage.counter(self.kind);
        counter.fetch_sub(1, Ordering::Relaxed);
    }
}

fn quota(rate: Rate) -> Quota {
    Quota::per_second(rate.per_second).allow_burst(rate.burst)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::proto;

    const GET: &str = "GetVoiceCall";
    const WATCH: &str = "WatchVoiceCalls";
    const EXPORT: &str = "ExportVoiceCalls";

    fn limits(text: &[(&str, u32)]) -> Limits {
        let find = |key| {
            let found = text.iter().find(|(name, _)| *name == key);
            found.map(|(_, count)| NonZeroU32::new(*count).expect("not zero"))
        };
        Limits {
            requests: find("requests"),
            watches: find("watches"),
            transfers: find("transfers"),
            rate: find("rate").map(|rate| Rate::new(rate, find("burst"))),
        }
    }

    fn principals(defaults: &[(&str, u32)]) -> Principals {
        Principals::new(limits(defaults))
    }

    fn count(principals: &Principals, name: &str, rpc: &str) -> Result<Counted, ReachedLimit> {
        let counted = principals.count(&name.into(), Limits::default(), rpc);
        counted.map_err(|error| match error {
            Error::RateLimited(limit) => limit,
            other => panic!("{other:?}"),
        })
    }

    fn known(principals: &Principals) -> usize {
        principals.known.lock().expect("not poisoned").usages.len()
    }

    #[test]
    fn each_limit_is_reached_and_freed_and_is_the_principals_own() {
        for (key, rpc) in [
            ("requests", GET),
            ("requests", WATCH),
            ("watches", WATCH),
            ("transfers", EXPORT),
        ] {
            let principals = principals(&[(key, 2)]);
            let first = count(&principals, "a", rpc).expect("the first");
            let second = count(&principals, "a", rpc).expect("the second");
            let refused = count(&principals, "a", rpc).err().expect("it is the third");
            let two = NonZeroU32::new(2).expect("not zero");
            let expected = match key {
                "requests" => ReachedLimit::Requests(two),
                "watches" => ReachedLimit::Watches(two),
                _ => ReachedLimit::Transfers(two),
            };
            assert_eq!(refused, expected);
            assert!(count(&principals, "b", rpc).is_ok());
            drop(first);
            let third = count(&principals, "a", rpc).expect("there is room again");
            assert!(count(&principals, "a", rpc).is_err());
            drop((second, third));
        }
    }

    #[test]
    fn a_stream_counts_as_a_request_only_while_it_has_its_place() {
        let principals = principals(&[("requests", 1), ("watches", 2)]);
        let mut first = count(&principals, "a", WATCH).expect("the first");
        assert!(count(&principals, "a", GET).is_err());
        first.request = None;
        assert!(count(&principals, "a", GET).is_ok());
        let second = count(&principals, "a", WATCH).expect("the second");
        drop(second.request);
        let refused = count(&principals, "a", WATCH).err();
        assert!(matches!(refused, Some(ReachedLimit::Watches(_))));
        // What was refused counts nowhere.
        drop(first);
        assert!(count(&principals, "a", WATCH).is_ok());
    }

    #[test]
    fn a_burst_is_accepted_and_then_the_time_of_the_next_is_told() {
        let principals = principals(&[("rate", 1), ("burst", 10)]);
        let began = Instant::now();
        let mut accepted = 0;
        let refused = loop {
            match count(&principals, "a", GET) {
                Ok(_) => accepted += 1,
                Err(refused) => break refused,
            }
        };
        let took = began.elapsed();
        let ReachedLimit::Rate { retry_after, .. } = refused else {
            panic!("{refused:?}");
        };
        // More than the burst only if the machine has held up the loop for seconds.
        assert!(accepted >= 10);
        let next = Duration::from_secs(accepted - 9);
        assert!(retry_after <= Duration::from_secs(1) && retry_after + took >= next);
        assert!(count(&principals, "b", GET).is_ok());
    }

    #[test]
    fn what_is_refused_by_another_limit_uses_nothing_of_the_rate() {
        let principals = principals(&[("rate", 1), ("burst", 2), ("watches", 1)]);
        let watch = count(&principals, "a", WATCH).expect("the first");
        for _ in 0..10 {
            let refused = count(&principals, "a", WATCH).err();
            assert!(matches!(refused, Some(ReachedLimit::Watches(_))));
        }
        assert!(count(&principals, "a", GET).is_ok());
        drop(watch);
    }

    #[test]
    fn own_limits_come_before_the_defaults() {
        let principals = principals(&[("requests", 1)]);
        let own = limits(&[("requests", 2), ("watches", 1)]);
        let name = Arc::from("a");
        let count = || principals.count(&name, own, GET);
        let held = (count().expect("the first"), count().expect("the second"));
        assert!(count().is_err());
        // After a change of the limits it begins anew.
        assert!(principals.count(&name, Limits::default(), GET).is_ok());
        drop(held);
    }

    #[test]
    fn those_without_limits_are_not_remembered() {
        let principals = principals(&[]);
        for _ in 0..10 {
            assert!(count(&principals, "a", WATCH).is_ok());
        }
        assert_eq!(known(&principals), 0);
    }

    #[test]
    fn those_who_have_gone_are_forgotten_and_those_in_progress_are_not() {
        let principals = principals(&[("watches", 1)]);
        let staying = count(&principals, "staying", WATCH).expect("it is the first");
        for number in 0..100 * MIN_SWEEP_AT {
            assert!(count(&principals, &number.to_string(), WATCH).is_ok());
            assert!(known(&principals) <= 2 * MIN_SWEEP_AT);
        }
        assert!(count(&principals, "staying", WATCH).is_err());
        drop(staying);
        assert!(count(&principals, "staying", WATCH).is_ok());
    }

    #[test]
    fn a_rate_is_remembered_until_it_has_recovered() {
        // Recovers in 2^32 seconds.
        let slow = principals(&[("rate", 1), ("burst", u32::MAX)]);
        for number in 0..2 * MAX_RECOVERING + 2 {
            assert!(count(&slow, &number.to_string(), GET).is_ok());
            assert!(known(&slow) <= 2 * MAX_RECOVERING);
        }
        let minute = principals(&[("rate", 1), ("burst", 60)]);
        for number in 0..2 * MIN_SWEEP_AT {
            assert!(count(&minute, &number.to_string(), GET).is_ok());
        }
        assert_eq!(known(&minute), 2 * MIN_SWEEP_AT);

        // Recovers in a nanosecond.
        let fast = principals(&[("rate", u32::MAX), ("burst", 1)]);
        for number in 0..10 * MIN_SWEEP_AT {
            assert!(count(&fast, &number.to_string(), GET).is_ok());
            assert!(known(&fast) <= 2 * MIN_SWEEP_AT);
        }
    }

    #[test]
    fn every_stream_is_counted() {
        let files = FileDescriptorSet::decode(proto::DESCRIPTORS).expect("they are valid");
        let services = files.file.iter().flat_map(|file| &file.service);
        for rpc in services.flat_map(|service| &service.method) {
            let is_stream = rpc.client_streaming() || rpc.server_streaming();
            let is_counted = Kind::of_rpc(rpc.name()).is_some();
            assert!(!is_stream || is_counted, "{}", rpc.name());
        }
        assert_eq!(Kind::of_rpc(GET), None);
    }
}
