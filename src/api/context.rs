//! What a handler knows of a request besides its message.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long a read may take when the client sets no deadline.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// What ends a stream from outside.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    /// The server goes away.
    pub(super) draining: CancellationToken,
    /// The client's own deadline.
    pub(super) deadline: Option<Instant>,
}

impl Ends {
    /// Ends when the client's deadline has passed, if it has one.
    pub(super) async fn deadline(&self) {
        match self.deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }
}

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
}
