//! What the framework refuses by itself, in the form of the service's own errors. Its
//! statuses have no details, and some have other codes than ours.

use http::HeaderMap;
use tonic::{Code, Status, body::Body};

use super::error::{Error, TooLarge};

const DETAILS: &str = "grpc-status-details-bin";
/// In a refusal it says which compressions are accepted instead.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

/// Completes a response that is an error of the framework.
pub(super) fn complete_response(response: &mut http::Response<Body>) {
    if let Some(error) = error_of_headers(response.headers()) {
        *response = Status::from(error).into_http();
    }
}

/// Completes the error that ends a stream of requests. The response has begun by then, so
/// it is sent in the trailers.
pub(super) fn complete(status: Status) -> Status {
    if !status.details().is_empty() {
        return status;
    }
    error(status.code()).map_or(status, Status::from)
}

fn error_of_headers(headers: &HeaderMap) -> Option<Error> {
    let code = Code::from_bytes(headers.get("grpc-status")?.as_bytes());
    if headers.contains_key(DETAILS) {
        return None;
    }
    if code == Code::Unimplemented && headers.contains_key(ACCEPT_ENCODING) {
        return Some(Error::UnsupportedCompression);
    }
    error(code)
}

fn error(code: Code) -> Option<Error> {
    match code {
        Code::Unimplemented => Some(Error::UnknownMethod),
        // The message is over the limit: its length prefix says so, or it is found out while
        // the message is decompressed.
        Code::OutOfRange | Code::ResourceExhausted => {
            Some(Error::MessageTooLarge(TooLarge::Request))
        }
        // What the framework returns for a body that ends within a message, has none, or
        // has an invalid prefix. An internal error of the service would have details.
        Code::Internal => Some(Error::MalformedMessage),
        _ => None,
    }
}
