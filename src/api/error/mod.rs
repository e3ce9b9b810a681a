//! Every error that leaves the service. `status` says what clients are told of each.

mod status;

pub(super) use status::to_import_error;

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
