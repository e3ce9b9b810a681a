//! Why a request failed, typed: the error of the service, or of the connection to it.

use std::{collections::BTreeMap, error, fmt, time::Duration};

use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt;

use super::TokenError;
use crate::proto::ErrorReason;

/// What a service with TLS sends, in HTTP/2's GOAWAY, to clients without.
const PORT_SPEAKS_TLS: &str = "this port speaks TLS";
/// What TLS says of a peer whose first byte belongs to another protocol.
const NOT_TLS: &str = "InvalidContentType";

/// Why a request failed: the service refused it, or could not be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The gRPC code.
    pub code: Code,
    /// What happened, for people.
    pub message: String,
    /// What happened, for programs.
    pub details: Box<Details>,
}

/// What programs can decide on besides the code. Everything from the service is empty if the
/// request did not reach it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// The name of the service's reason, which may be newer than this client;
    /// see [`Error::reason`].
    pub reason: Option<String>,
    /// Values that belong to the reason, such as `current_revision`.
    pub metadata: BTreeMap<String, String>,
    /// All invalid fields of the request.
    pub violations: Vec<FieldViolation>,
    /// How long to wait before a retry, if the service said so.
    pub retry_after: Option<Duration>,
    /// The request id of a write. A retry with the same one is applied at most once.
    pub request_id: Option<String>,
    /// The id of the request in the service's log.
    pub x_request_id: Option<String>,
    /// The number of times that the request was sent.
    pub attempts: u32,
}

/// An invalid field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The path of the field in the request, such as `voice_calls[3].duration`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl Error {
    /// The reason, if this client knows it.
    #[must_use]
    pub fn reason(&self) -> Option<ErrorReason> {
        let name = self.details.reason.as_deref()?;
        ErrorReason::from_str_name(&format!("ERROR_REASON_{name}"))
    }

    /// The code as the gRPC protocol writes it, such as `NOT_FOUND`.
    #[must_use]
    pub fn code_name(&self) -> String {
        let mut name = String::new();
        for c in format!("{:?}", self.code).chars() {
            if c.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
        }
        name
    }

    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Box::default(),
        }
    }

    /// There was no response within the deadline.
    pub(super) fn deadline_exceeded() -> Self {
        Self::new(Code::DeadlineExceeded, "")
    }

    /// Whether the service does not accept the token, or does not any more.
    pub(super) fn refuses_token(&self) -> bool {
        let reason = self.reason();
        self.code == Code::Unauthenticated
            && matches!(
                reason,
                Some(ErrorReason::TokenExpired | ErrorReason::CredentialsInvalid)
            )
    }

    /// Adds to the message.
    pub(super) fn note(mut self, what: &str) -> Self {
        self.message.push_str("; ");
        self.message.push_str(what);
        self
    }

    /// Adds the number of attempts, and the error of the previous attempt to a message about
    /// the deadline.
    pub(super) fn with_attempts(
        mut self,
        attempts: u32,
        deadline: Duration,
        previous: Option<&Self>,
    ) -> Self {
        self.details.attempts = attempts;
        // With a reason, the error is from the service, and its message is clear.
        if self.code == Code::DeadlineExceeded && self.details.reason.is_none() {
            self.message =
                format!("no response within {deadline:?}; a write may have been applied");
            if let Some(previous) = previous {
                self.message.push_str("; the previous attempt: ");
                self.message.push_str(&previous.message);
            }
        }
        self
    }

    pub(super) fn from_status(status: &Status, endpoint: &str) -> Self {
        if error::Error::source(status).is_some() {
            return Self::from_transport(status, endpoint);
        }
        let found = status.get_error_details();
        let info = found.error_info();
        let violations = found.bad_request().map(|bad| {
            let violations = bad.field_violations.iter();
            violations.map(|one| FieldViolation {
                field: one.field.clone(),
                description: one.description.clone(),
            })
        });
        let retry_after = found.retry_info().and_then(|info| info.retry_delay);
        let x_request_id = status.metadata().get("x-request-id");
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            details: Box::new(Details {
                reason: info.map(|info| info.reason.clone()),
                metadata: info
                    .map(|info| info.metadata.clone().into_iter().collect())
                    .unwrap_or_default(),
                violations: violations.map(Iterator::collect).unwrap_or_default(),
                retry_after: retry_after.filter(|delay| !delay.is_zero()),
                request_id: None,
                x_request_id: x_request_id
                    .and_then(|id| id.to_str().ok())
                    .map(str::to_owned),
                attempts: 0,
            }),
        }
    }

    /// The error of a request that got no response from the service. The framework reports
    /// `UNKNOWN` for causes that it does not know and `CANCELLED` for a lost connection; gRPC
    /// specifies `UNAVAILABLE` for both.
    fn from_transport(status: &Status, endpoint: &str) -> Self {
        let mut first_cause = status.message().to_owned();
        let mut next = error::Error::source(status);
        let mut is_timeout = false;
        while let Some(cause) = next {
            is_timeout |= cause.is::<TimeoutExpired>();
            // The outer errors only say that something went wrong.
            first_cause = cause.to_string();
            next = cause.source();
        }
        if let Some(message) = misdirected(&first_cause, endpoint) {
            return Self::new(Code::FailedPrecondition, message);
        }
        let code = match status.code() {
            _ if is_timeout => Code::DeadlineExceeded,
            Code::Unknown | Code::Cancelled => Code::Unavailable,
            code => code,
        };
        Self::new(code, format!("no response from {endpoint}: {first_cause}"))
    }
}

/// What to do when one side speaks TLS and the other does not. This is not retried: the endpoint
/// is wrong.
fn misdirected(cause: &str, endpoint: &str) -> Option<String> {
    let (is, other) = if cause.contains(PORT_SPEAKS_TLS) {
        ("speaks TLS", endpoint.replacen("http:", "https:", 1))
    } else if cause.contains(NOT_TLS) {
        (
            "does not speak TLS",
            endpoint.replacen("https:", "http:", 1),
        )
    } else {
        return None;
    };
    Some(format!("the service {is}: use {other}"))
}

impl From<TokenError> for Error {
    /// The request was not sent.
    fn from(error: TokenError) -> Self {
        Self::new(Code::Unauthenticated, error.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code_name(), self.message)
    }
}

impl error::Error for Error {}
