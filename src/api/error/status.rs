//! The place where an error becomes a [`Status`]. Only a message that is not decoded has its status
//! from the codec (`proto/codec`, `proto/request_size`), which knows nothing of this layer.
//!
//! The messages are written here: they never contain text of the database driver, SQL, or
//! the contents of a call.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{
    Error, TooLarge,
    caller::{rate_limited, scope_missing, unauthenticated},
};
use crate::{
    api::violations::Violations,
    domain::{Revision, machine::Rejection},
    proto::{self, ERROR_DOMAIN, ErrorReason},
    store::{LogError, ReadError, WriteError},
};

/// How long a client should wait before it retries, by cause.
pub(super) const RETRY_OVERLOAD: Duration = Duration::from_millis(100);
pub(super) const RETRY_DATABASE: Duration = Duration::from_secs(1);
const RETRY_ELSEWHERE: Duration = Duration::from_millis(10);

/// Details are sent in a header, and clients accept 8 KiB of headers by default.
const MAX_VIOLATION_BYTES: usize = 4096;

/// The parts of a status besides the violations.
pub(super) struct Parts {
    code: Code,
    reason: ErrorReason,
    message: String,
    metadata: HashMap<String, String>,
    retry_after: Option<Duration>,
}

impl Parts {
    pub(super) fn new(code: Code, reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            metadata: HashMap::new(),
            retry_after: None,
        }
    }

    pub(super) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.into(), value.to_string());
        self
    }

    pub(super) fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let violations = match &error {
            Error::InvalidFields(violations) => violations.clone(),
            _ => violations_of_write(&error),
        };
        let parts = parts(error);
        let mut details = ErrorDetails::new();
        let reason = parts.reason.as_str_name();
        let reason = reason.strip_prefix("ERROR_REASON_").unwrap_or(reason);
        details.set_error_info(reason, ERROR_DOMAIN, parts.metadata);
        if parts.retry_after.is_some() {
            details.set_retry_info(parts.retry_after);
        }
        let mut bytes = 0;
        let all = violations.len();
        for (listed, (path, description)) in violations.into_iter().enumerate() {
            bytes += path.len() + description.len();
            if bytes > MAX_VIOLATION_BYTES {
                details.add_bad_request_violation("", format!("{} more", all - listed));
                break;
            }
            details.add_bad_request_violation(path, description);
        }
        Self::with_error_details(parts.code, parts.message, details)
    }
}

/// A violation that depends on the state of the call.
fn violations_of_write(error: &Error) -> Violations {
    let mut violations = Violations::default();
    if let Error::Write {
        error:
            WriteError::Rejected {
                rejection: Rejection::DirectionRequired { .. },
                ..
            },
        ..
    } = error
    {
        violations.push("voice_call.direction", "is required to create the call");
    }
    violations
}

fn parts(error: Error) -> Parts {
    match error {
        Error::InvalidFields(violations) => Parts::new(
            Code::InvalidArgument,
            ErrorReason::InvalidField,
            violations.summary(),
        ),
        Error::InvalidPageToken => Parts::new(
            Code::InvalidArgument,
            ErrorReason::InvalidPageToken,
            "page_token is truncated or corrupt, or belongs to another query",
        ),
        Error::MalformedMessage => Parts::new(
            Code::InvalidArgument,
            ErrorReason::MalformedMessage,
            "the bytes are not a valid message of this API",
        ),
        Error::MessageTooLarge(which) => too_large(which),
        Error::NotFound(uid) => rejection(Rejection::NotFound { uid }),
        Error::Purged(uid) => rejection(Rejection::Purged { uid }),
        Error::InvalidResumeToken => Parts::new(
            Code::InvalidArgument,
            ErrorReason::InvalidResumeToken,
            "resume_token is truncated, corrupt, or from a newer release",
        ),
        Error::Log(error) => log(error),
        Error::WatcherTooSlow => Parts::new(
            Code::ResourceExhausted,
            ErrorReason::WatcherTooSlow,
            "the client read too slowly, and what it needs next is no longer kept; start again",
        ),
        Error::Write {
            error,
            has_request_id,
        } => write(error, has_request_id),
        Error::Import(error) => import(error),
        Error::Read(error) => read(error),
        Error::Overloaded => overloaded(),
        Error::RequestStalled => Parts::new(
            Code::ResourceExhausted,
            ErrorReason::Overloaded,
            "the request stopped arriving before it was complete; send it again",
        )
        .retry_after(RETRY_DATABASE),
        Error::Draining => draining(),
        Error::DeadlineExceeded => deadline_exceeded(),
        Error::Unauthenticated(refusal) => unauthenticated(refusal),
        Error::ScopeMissing(scope) => scope_missing(scope),
        Error::OutOfScope => rejection(Rejection::OutOfScope),
        Error::RateLimited(limit) => rate_limited(limit),
        Error::UnknownMethod => Parts::new(
            Code::Unimplemented,
            ErrorReason::UnknownMethod,
            "this server has no such method",
        ),
        Error::UnsupportedCompression => Parts::new(
            Code::Unimplemented,
            ErrorReason::UnsupportedCompression,
            "this server accepts only requests that are uncompressed or compressed with gzip",
        ),
    }
}

fn too_large(which: TooLarge) -> Parts {
    let message = match which {
        TooLarge::Request => "the request is larger than this server accepts",
        TooLarge::Metadata => "the request's metadata is larger than 16 KiB",
        TooLarge::Response => "the response would be larger than 2 MiB; request less at once",
    };
    Parts::new(
        Code::ResourceExhausted,
        ErrorReason::MessageTooLarge,
        message,
    )
}

fn write(error: WriteError, has_request_id: bool) -> Parts {
    match error {
        WriteError::Rejected { rejection: why, .. } => rejection(why),
        WriteError::RequestIdReused => Parts::new(
            Code::InvalidArgument,
            ErrorReason::RequestIdReused,
            "request_id was used for another request within the last 24 hours",
        ),
        WriteError::AnswerCompacted { oldest_revision } => Parts::new(
            Code::OutOfRange,
            ErrorReason::RevisionCompacted,
            "the request was applied before, and its result is no longer in the log",
        )
        .with("oldest_revision", oldest_revision),
        WriteError::Overloaded => overloaded(),
        WriteError::Stopping => draining(),
        WriteError::Unavailable => database_unavailable(),
        WriteError::OutcomeUnknown if has_request_id => Parts::new(
            Code::Unavailable,
            ErrorReason::OutcomeUnknown,
            "the connection to the database was lost during the commit; retry with the same \
             request_id",
        )
        .retry_after(RETRY_DATABASE),
        WriteError::OutcomeUnknown => Parts::new(
            Code::Unknown,
            ErrorReason::OutcomeUnknown,
            "the connection to the database was lost during the commit, and the write may have \
             been applied; read before you write again",
        ),
        WriteError::Internal => internal(),
    }
}

fn import(error: WriteError) -> Parts {
    match error {
        WriteError::Unavailable => Parts::new(
            Code::Unavailable,
            ErrorReason::DatabaseUnavailable,
            "the database is unavailable; send the unacknowledged records again",
        )
        .retry_after(RETRY_DATABASE),
        WriteError::OutcomeUnknown => Parts::new(
            Code::Unavailable,
            ErrorReason::OutcomeUnknown,
            "the connection to the database was lost during a commit; send the unacknowledged \
             records again",
        )
        .retry_after(RETRY_DATABASE),
        other => write(other, true),
    }
}

/// The error of one record of an import, which is sent as a message.
pub(in crate::api) fn to_import_error(error: Error) -> proto::ImportError {
    let violations = match &error {
        Error::InvalidFields(violations) => violations.clone(),
        _ => Violations::default(),
    };
    let parts = parts(error);
    proto::ImportError {
        reason: parts.reason.into(),
        message: parts.message,
        field_violations: violations
            .into_iter()
            .map(|(field, description)| proto::ImportFieldViolation { field, description })
            .collect(),
    }
}

fn log(error: LogError) -> Parts {
    match error {
        LogError::Read(error) => read(error),
        LogError::Compacted { oldest_revision } => Parts::new(
            Code::OutOfRange,
            ErrorReason::RevisionCompacted,
            format!(
                "changes are kept from revision {oldest_revision} on; start again with a snapshot"
            ),
        )
        .with("oldest_revision", oldest_revision),
        LogError::Ahead { head_revision } => Parts::new(
            Code::OutOfRange,
            ErrorReason::RevisionAhead,
            format!(
                "the change log ends before this point: its newest revision is {head_revision}"
            ),
        )
        .with("head_revision", head_revision),
        LogError::Reset => Parts::new(
            Code::FailedPrecondition,
            ErrorReason::FeedReset,
            "this point is not, or is no longer, in the change log of this database; start again \
             with a snapshot",
        ),
    }
}

fn read(error: ReadError) -> Parts {
    match error {
        ReadError::Overloaded => overloaded(),
        ReadError::Stopping => draining(),
        ReadError::Unavailable => database_unavailable(),
        ReadError::DeadlineExceeded => deadline_exceeded(),
        ReadError::RevisionNotReached { current_revision } => {
            revision_not_reached(current_revision)
        }
        ReadError::Internal => internal(),
    }
}

fn rejection(rejection: Rejection) -> Parts {
    let message = rejection.to_string();
    let parts = |code, reason| Parts::new(code, reason, message);
    match rejection {
        Rejection::NotFound { uid } => {
            parts(Code::NotFound, ErrorReason::CallNotFound).with("uid", uid)
        }
        Rejection::Purged { uid } => {
            parts(Code::NotFound, ErrorReason::CallPurged).with("uid", uid)
        }
        Rejection::UidPurged { uid } => {
            parts(Code::AlreadyExists, ErrorReason::CallPurged).with("uid", uid)
        }
        Rejection::AlreadyExists { uid } => {
            parts(Code::AlreadyExists, ErrorReason::CallAlreadyExists).with("uid", uid)
        }
        Rejection::NotDeleted { uid } => {
            parts(Code::AlreadyExists, ErrorReason::CallNotDeleted).with("uid", uid)
        }
        Rejection::Deleted { uid } => {
            parts(Code::FailedPrecondition, ErrorReason::CallDeleted).with("uid", uid)
        }
        Rejection::IllegalStatusChange { uid, status } => {
            parts(Code::FailedPrecondition, ErrorReason::IllegalStatusChange)
                .with("uid", uid)
                .with("status", status.word())
        }
        Rejection::AlreadyHandled { uid } => {
            parts(Code::FailedPrecondition, ErrorReason::AlreadyHandled).with("uid", uid)
        }
        Rejection::RevisionMismatch {
            uid,
            current_revision,
        } => parts(Code::Aborted, ErrorReason::RevisionMismatch)
            .with("uid", uid)
            .with("current_revision", current_revision),
        Rejection::DirectionRequired { uid } => {
            parts(Code::InvalidArgument, ErrorReason::InvalidField).with("uid", uid)
        }
        Rejection::OutOfScope => parts(Code::PermissionDenied, ErrorReason::OutOfScope),
    }
}

fn overloaded() -> Parts {
    Parts::new(
        Code::ResourceExhausted,
        ErrorReason::Overloaded,
        "the server is overloaded; nothing was done",
    )
    .retry_after(RETRY_OVERLOAD)
}

fn draining() -> Parts {
    Parts::new(
        Code::Unavailable,
        ErrorReason::Draining,
        "this server is shutting down, or this connection is about to close; retry on another one",
    )
    .retry_after(RETRY_ELSEWHERE)
}

fn database_unavailable() -> Parts {
    Parts::new(
        Code::Unavailable,
        ErrorReason::DatabaseUnavailable,
        "the database is unavailable; nothing was done",
    )
    .retry_after(RETRY_DATABASE)
}

fn deadline_exceeded() -> Parts {
    Parts::new(
        Code::DeadlineExceeded,
        ErrorReason::DeadlineExceeded,
        "the deadline passed; a write may have been applied",
    )
}

fn revision_not_reached(current_revision: Revision) -> Parts {
    Parts::new(
        Code::FailedPrecondition,
        ErrorReason::RevisionNotReached,
        format!(
            "min_revision was not reached in time; the newest revision here is {current_revision}"
        ),
    )
    .with("current_revision", current_revision)
}

fn internal() -> Parts {
    Parts::new(
        Code::Internal,
        ErrorReason::Internal,
        "internal error; the server's log has details under the x-request-id of this response",
    )
}
