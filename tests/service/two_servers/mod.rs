//! Failures of two real PostgreSQL servers, a primary and its standby, while the
//! service is in use.
//!
//! - `pair` starts the two servers and makes them fail; `load` writes meanwhile, and
//!   records what was acknowledged; `reads` reads a call by every kind of read
//! - `takeover`: the primary freezes, becomes unreachable, or is demoted
//! - `unreplicated`: commits that have not reached the standby
//! - `read_time`: what checkpoints say while a commit waits for the standby
//! - `restart`: reads after a restart of the primary, while the standby is behind
//! - `lost_tail`, `lost_batch`: the promoted standby lacks the last changes
//!
//! Each test prints how long no write was acknowledged (see it with `--nocapture`).
//! Long tests run only with VOICECALL_TEST_LONG set, and print that they were skipped
//! otherwise.

mod load;
mod lost_batch;
mod lost_tail;
mod pair;
mod read_time;
mod reads;
mod restart;
mod takeover;
mod unreplicated;

use std::time::Duration;

use tokio::time::{Instant, interval};

/// How soon writes must resume after a server is writable.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Whether to run the long tests.
fn is_long_run() -> bool {
    std::env::var_os("VOICECALL_TEST_LONG").is_some()
}

/// Waits until the condition holds; a test that waits longer than `time` fails.
async fn within(time: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + time;
    let mut looks = interval(Duration::from_millis(5));
    while !holds().await {
        looks.tick().await;
        assert!(
            Instant::now() < deadline,
            "waited {time:?} in vain until {what}"
        );
    }
}

/// Runs blocking code without holding up the other tasks of the test.
fn blocking<T>(run: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(run)
}
