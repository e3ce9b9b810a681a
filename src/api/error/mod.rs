//! Every error that leaves the service. `status` says what clients are told of each, and `caller`
//! of those that depend on who is calling.

mod caller;
mod status;

pub(super) use status::to_import_error;

use std::{num::NonZeroU32, time::Duration};

use super::violations::Violations;
use crate::{
    auth::{Refusal, Scope},
    feed::SnapshotError,
    store::{LogError, ReadError, WriteError},
};

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Fields, masks or arguments are invalid.
    InvalidFields(Violations),
    /// The page token is truncated or corrupt, or belongs to another query.
    InvalidPageToken,
    /// The bytes cannot be decoded.
    MalformedMessage,
    /// A message is larger than allowed.
    MessageTooLarge(TooLarge),
    /// There is no such call.
    NotFound(uuid::Uuid),
    /// There was such a call, and it was purged.
    Purged(uuid::Uuid),
    /// The resume token is truncated, corrupt, or of an unknown version.
    InvalidResumeToken,
    /// The change log cannot be read from this point.
    Log(LogError),
    /// What the client needs next is no longer kept.
    WatcherTooSlow,
    /// A write was refused or failed.
    Write {
        /// Why.
        error: WriteError,
        /// Whether the request can be repeated safely.
        has_request_id: bool,
    },
    /// An import cannot continue, or one of its records is refused.
    Import(WriteError),
    /// A read failed.
    Read(ReadError),
    /// The server is overloaded.
    Overloaded,
    /// The client stopped sending in the middle of a request.
    RequestStalled,
    /// The server is shutting down, or the connection is about to close.
    Draining,
    /// The deadline passed.
    DeadlineExceeded,
    /// Who is calling is not proved.
    Unauthenticated(Refusal),
    /// The caller lacks this scope.
    ScopeMissing(Scope),
    /// The caller is narrowed to some calls, and this would go beyond them.
    OutOfScope,
    /// The caller has reached a limit of its own.
    RateLimited(ReachedLimit),
    /// There is no such method.
    UnknownMethod,
    /// The request is compressed in an unknown way.
    UnsupportedCompression,
}

/// Which message is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLarge {
    /// The request.
    Request,
    /// The metadata of the request.
    Metadata,
    /// The response to it.
    Response,
}

/// Which limit of a principal is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReachedLimit {
    /// It has these requests in progress.
    Requests(NonZeroU32),
    /// It has these watches.
    Watches(NonZeroU32),
    /// It has these imports, exports and requests for statistics.
    Transfers(NonZeroU32),
    /// Its requests come too fast.
    Rate {
        /// How many may come in a second.
        per_second: NonZeroU32,
        /// When the next one is accepted.
        retry_after: Duration,
    },
}

impl From<Violations> for Error {
    fn from(violations: Violations) -> Self {
        Self::InvalidFields(violations)
    }
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<SnapshotError> for Error {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Log(LogError::Compacted { .. }) | SnapshotError::TooSlow => {
                Self::WatcherTooSlow
            }
            SnapshotError::Log(error) => Self::Log(error),
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}
