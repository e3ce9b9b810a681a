//! Where the keys of an identity provider come from: a file, which is read again when its
//! content changes, or a URL, which is fetched from time to time, and when a token names a
//! key that is unknown.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    KeySet,
    fetch::{Fetcher, InvalidUrl},
};
use crate::reload::{Current, Replace};

/// How often keys are fetched.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// How often at most they are fetched for tokens that name unknown keys.
const MIN_DEMAND_INTERVAL: Duration = Duration::from_secs(60);
/// The pause after a failure while there are no keys: it doubles up to the longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How many requests wait for keys at once: all others that name an unknown key are refused, so
/// that callers without credentials take no places from those who have some.
const MAX_WAITING: usize = 16;
/// How long a request waits for keys that are fetched for its sake.
const DEMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// The keys as they are now. Clones follow the same ones.
#[derive(Debug, Clone)]
pub struct Keys {
    current: Current<KeySet>,
    demand: Option<Arc<Demand>>,
}

/// Asks for keys to be fetched now.
#[derive(Debug)]
struct Demand {
    /// When that was last asked, and how many attempts there had been.
    last: Mutex<Option<(Instant, u64)>>,
    wanted: Notify,
    waiting: Semaphore,
    /// How many attempts to fetch them have ended.
    attempts: watch::Sender<u64>,
}

impl Keys {
    /// Keys of a file, which another task reads.
    #[must_use]
    pub fn of_file(current: Current<KeySet>) -> Self {
        Self {
            current,
            demand: None,
        }
    }

    /// Keys of a URL, and the task that fetches them, which has to be run.
    ///
    /// # Errors
    /// The URL is not an https URL.
    pub fn of_url(url: &str) -> Result<(Self, Fetching), InvalidUrl> {
        let fetcher = Fetcher::new(url)?;
        let (replace, current) = Replace::new();
        let demand = Arc::new(Demand {
            last: Mutex::default(),
            wanted: Notify::new(),
            waiting: Semaphore::new(MAX_WAITING),
            attempts: watch::Sender::new(0),
        });
        let fetching = Fetching {
            fetcher,
            replace,
            demand: Arc::clone(&demand),
        };
        let keys = Self {
            current,
            demand: Some(demand),
        };
        Ok((keys, fetching))
    }

    pub(super) fn follow(&self) -> Current<KeySet> {
        self.current.clone()
    }

    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.current.get()
    }

    pub(super) fn version(&self) -> u64 {
        self.current.version()
    }

    /// Has the keys fetched, and waits for them; not more than once a minute.
    pub(super) async fn refresh(&self) {
        let Some(demand) = &self.demand else { return };
        let Ok(_waiting) = demand.waiting.try_acquire() else {
            return;
        };
        let mut attempts = demand.attempts.subscribe();
        let made = *attempts.borrow_and_update();
        if demand.ask(made, Instant::now()) {
            let _ = timeout(DEMAND_TIMEOUT, attempts.changed()).await;
        }
    }
}

impl Demand {
    /// Asks, unless that was done within the last minute. Whether an attempt is under way.
    fn ask(&self, made: u64, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((at, before)) if now < at + MIN_DEMAND_INTERVAL => before == made,
            _ => {
                *last = Some((now, made));
                self.wanted.notify_one();
                true
            }
        }
    }
}

/// Fetches keys for as long as it runs.
pub struct Fetching {
    fetcher: Fetcher,
    replace: Replace<KeySet>,
    demand: Arc<Demand>,
}

impl Fetching {
    /// Fetches them at once and from then on, until `stop` is cancelled. When they cannot be
    /// fetched, the last ones stay in use.
    pub async fn run(self, stop: CancellationToken) {
        let ended = stop.run_until_cancelled(self.fetch_again_and_again());
        ended.await;
    }

    async fn fetch_again_and_again(&self) {
        let mut last = None;
        let mut retry_after = FIRST_RETRY;
        loop {
            let fetched = self.fetcher.fetch().await;
            let parsed = fetched.and_then(|text| match KeySet::parse(&text) {
                Ok(keys) => Ok((text, keys)),
                Err(error) => Err(error.to_string()),
            });
            match parsed {
                Ok((text, keys)) => {
                    if last.as_ref() != Some(&text) {
                        info!(
                            keys = keys.len(),
                            "fetched the keys of the identity provider"
                        );
                        self.replace.set(keys);
                        last = Some(text);
                    }
                }
                Err(reason) => {
                    let stays = if last.is_some() {
                        "; the last ones stay in use"
                    } else {
                        ""
                    };
                    warn!("cannot fetch the keys of the identity provider{stays}: {reason}");
                }
            }
            self.demand.attempts.send_modify(|attempts| *attempts += 1);
            let pause = match last {
                Some(_) => REFRESH_INTERVAL,
                None => retry_after,
            };
            retry_after = (retry_after * 2).min(LAST_RETRY);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.demand.wanted.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_have_them_fetched_once_a_minute() {
        let demand = Demand {
            last: Mutex::default(),
            wanted: Notify::new(),
            waiting: Semaphore::new(MAX_WAITING),
            attempts: watch::Sender::new(0),
        };
        let now = Instant::now();
        assert!(demand.ask(1, now));
        assert!(demand.ask(1, now), "others wait for the same attempt");
        assert!(!demand.ask(2, now));
        assert!(demand.ask(2, now + MIN_DEMAND_INTERVAL));
    }
}
