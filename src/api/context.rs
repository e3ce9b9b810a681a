//! What a handler knows about a request besides its message: the deadline, and what ends a
//! stream from outside.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long a read may take when the client sets no deadline.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// What ends a stream besides its client and its own end.
#[derive(Debug, Clone)]
pub(super) struct StopSignals {
    /// Cancelled when the server starts to drain.
    pub(super) draining: CancellationToken,
    pub(super) deadline: Option<Instant>,
}

impl StopSignals {
    /// Returns once the client's deadline has passed; never, if there is none.
    pub(super) async fn deadline(&self) {
        match self.deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }
}

/// Added to each request by the middleware, read by the handlers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Context {
    /// The client's deadline, from `grpc-timeout`.
    pub(super) deadline: Option<Instant>,
}

impl Context {
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().copied().unwrap_or_default()
    }

    /// The deadline of a read: the client's, but no later than 30 s from now, because no
    /// transaction of the service may live longer.
    pub(super) fn read_deadline(self) -> Instant {
        let latest = Instant::now() + READ_TIMEOUT;
        self.deadline
            .map_or(latest, |deadline| deadline.min(latest))
    }
}
