//! What callers are told of the errors that depend on who they are.

use std::time::Duration;

use tonic::Code;

use super::{
    ReachedLimit,
    status::{Parts, RETRY_DATABASE, RETRY_OVERLOAD},
};
use crate::{
    auth::{Refusal, Scope},
    proto::ErrorReason,
};

/// Watches and transfers last longer than requests.
const RETRY_STREAM: Duration = Duration::from_secs(1);

/// Never says which part of the credentials was wrong: a caller with valid ones need not know, and
/// `voicecall auth check` tells the operator.
pub(super) fn unauthenticated(refusal: Refusal) -> Parts {
    let parts = |reason, message| Parts::new(Code::Unauthenticated, reason, message);
    match refusal {
        Refusal::Missing => parts(
            ErrorReason::CredentialsMissing,
            "the request has no credentials: send a bearer token in the authorization header, or \
             use a client certificate",
        ),
        Refusal::Expired => parts(
            ErrorReason::TokenExpired,
            "the credentials have expired; get new ones, then retry or resume",
        ),
        Refusal::Invalid(_) | Refusal::UnknownKey => parts(
            ErrorReason::CredentialsInvalid,
            "the credentials are not valid here",
        ),
        Refusal::NoKeys => Parts::new(
            Code::Unavailable,
            ErrorReason::AuthenticationUnavailable,
            "this server has not fetched the keys of the identity provider yet; nothing was done",
        )
        .retry_after(RETRY_DATABASE),
    }
}

pub(super) fn scope_missing(scope: Scope) -> Parts {
    Parts::new(
        Code::PermissionDenied,
        ErrorReason::ScopeMissing,
        format!("the caller lacks the scope {}", scope.name()),
    )
    .with("scope", scope.name())
}

/// Names the limit, so that nobody takes it for an overload of the server.
pub(super) fn rate_limited(limit: ReachedLimit) -> Parts {
    let (name, message, retry_after) = match limit {
        ReachedLimit::Requests(count) => (
            "requests",
            format!("this principal has its {count} requests in progress"),
            RETRY_OVERLOAD,
        ),
        ReachedLimit::Watches(count) => (
            "watches",
            format!("this principal has its {count} watches"),
            RETRY_STREAM,
        ),
        ReachedLimit::Transfers(count) => (
            "transfers",
            format!(
                "this principal has its {count} imports, exports and requests for statistics in \
                 progress"
            ),
            RETRY_STREAM,
        ),
        ReachedLimit::Rate {
            per_second,
            retry_after,
        } => (
            "rate",
            format!("this principal has sent its {per_second} requests a second"),
            retry_after,
        ),
    };
    Parts::new(
        Code::ResourceExhausted,
        ErrorReason::RateLimited,
        format!("{message}; nothing was done"),
    )
    .with("limit", name)
    .retry_after(retry_after)
}
