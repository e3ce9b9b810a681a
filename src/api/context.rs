//! What a handler knows of a request besides its message.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::domain::Timestamp;

/// How long a read may take when the client sets no deadline.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Put into the request by the edge, taken out by the handlers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Context {
    /// When the client gives up.
    pub(super) deadline: Option<Instant>,
}

impl Context {
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().copied().unwrap_or_default()
    }

    /// When a read is to be given up: at the client's deadline, but no later
    /// than 30 s from now, because no transaction of ours may live longer.
    pub(super) fn read_deadline(self) -> Instant {
        let latest = Instant::now() + READ_TIMEOUT;
        self.deadline
            .map_or(latest, |deadline| deadline.min(latest))
    }

    /// The server's clock.
    pub(super) fn now() -> Timestamp {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(_) => 0,
        };
        Timestamp::clamped(micros)
    }
}
