//! Two real servers, a primary and its standby, and what happens between them
//! while the service is in use.
//!
//! - `pair` is the two servers; `load` writes all the while, and knows what was
//!   acknowledged
//! - `reads`: what each kind of read shows of a call
//! - `takeover`: the primary freezes, cannot be reached, or is demoted
//! - `unreplicated`: commits that no standby has
//! - `restart`: reads after the primary was restarted beside its standby
//! - `lost_tail`, `lost_batch`: a standby is promoted that lacks the last changes
//!
//! Each test prints how long there were no writes (`--nocapture` shows it). What
//! takes long runs with VOICECALL_TEST_LONG set, and says so otherwise.

mod load;
mod lost_batch;
mod lost_tail;
mod pair;
mod reads;
mod restart;
mod takeover;
mod unreplicated;

use std::time::Duration;

use tokio::time::{Instant, interval};

/// Writes must go on this soon after a server is there that takes them.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Whether long tests are asked for.
fn is_long_run() -> bool {
    std::env::var_os("VOICECALL_TEST_LONG").is_some()
}

/// Waits for something that may take longer than `eventually` allows.
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

/// Runs what blocks this thread beside the other tasks of the test.
fn blocking<T>(run: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(run)
}
