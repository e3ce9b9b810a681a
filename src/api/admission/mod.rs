//! What a request may hold, and for how long.
//!
//! A request counts from its headers until its response has been written to the connection:
//!
//! - `request_body`: a body that does not arrive, or stops, ends the request
//! - `response_body`: a response goes out in small frames, at the client's pace
//! - `responses`: all that have not been written; one that its client does not read is given up,
//!   with everything that it holds
//! - `principals`: what each caller with limits has in progress, and how fast its requests come
//! - `budget`: bytes of large requests and large responses, all of them together, and those of
//!   one connection
//!
//! A stream has a place of its own kind (a watch, a transfer) from its handler, and gives the
//! request's place back with its headers: it says so by [`HasOwnPlace`].
//!
//! Health checks and reflection have no places, because they must work under load. Each connection
//! may have a few of them, and their bodies are bounded in the same way.
//!
//! It deliberately knows nothing of what a request does, and of its caller only the name and the
//! limits.

mod budget;
mod principals;
mod request_body;
mod response_body;
mod responses;

use std::sync::{Arc, Mutex, PoisonError};

use http_body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Status, body::Body};

pub(super) use self::budget::Budget;
pub(super) use self::principals::Count;
pub(super) use self::request_body::{RequestBody, read_rest};
pub use self::responses::Responses;
use self::{budget::Claim, principals::Principals, response_body::ResponseBody};
use super::{Limits, context::Connection, error::Error};
use crate::{
    auth::Principal,
    proto::request_size::{HELD_BYTES, HeldBytes},
};

/// Bytes of large requests in memory, as they arrived and as they were decoded: thirty-two of the
/// largest at the default limit.
const REQUEST_BYTES: usize = 256 * 1024 * 1024;
/// Bytes of large responses that have not been written: sixty-four of the largest.
const RESPONSE_BYTES: usize = 128 * 1024 * 1024;

/// A connection may have this part of each.
const CONNECTION_PART: usize = 4;

/// What the large requests and responses of one connection may hold.
#[derive(Debug)]
pub(super) struct ConnectionBytes {
    requests: Budget,
    responses: Budget,
}

impl Default for ConnectionBytes {
    fn default() -> Self {
        Self {
            requests: Budget::new(REQUEST_BYTES / CONNECTION_PART),
            responses: Budget::new(RESPONSE_BYTES / CONNECTION_PART),
        }
    }
}

/// Marks the response of a stream, whose handler has given it a place of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct HasOwnPlace;

/// The places of requests, and what they share.
pub(super) struct Admission {
    places: Arc<Semaphore>,
    principals: Principals,
    request_bytes: Budget,
    response_bytes: Budget,
    responses: Responses,
}

/// A request's place, given back when its request and its response have been dropped.
#[derive(Clone)]
pub(super) struct Place(Arc<Held>);

struct Held {
    request_bytes: Mutex<Claim>,
    /// Of its connection's share, of all, and of its principal's if that has a limit; `None` when
    /// they were given back.
    permits: Mutex<Option<Permits>>,
    /// Whose share of the bytes its response counts against.
    connection: Option<Arc<Connection>>,
}

type Permits = (
    Option<OwnedSemaphorePermit>,
    OwnedSemaphorePermit,
    Option<Count>,
);

impl Place {
    /// Lets another request have the place.
    pub(super) fn give_back(&self) {
        let permits = self.0.permits.lock();
        drop(permits.unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Counts against its principal's limit for as long as it has its place.
    fn hold(&self, count: Option<Count>) {
        let permits = self.0.permits.lock();
        if let Some(permits) = &mut *permits.unwrap_or_else(PoisonError::into_inner) {
            permits.2 = count;
        }
    }

    /// Counts bytes of the request; false: there is no room for them.
    fn add_request_bytes(&self, bytes: usize) -> bool {
        let claim = self.0.request_bytes.lock();
        claim.unwrap_or_else(PoisonError::into_inner).add(bytes)
    }
}

/// What is decoded counts for as long as the request has its place.
impl HeldBytes for Held {
    fn hold(&self, bytes: usize) -> Result<(), Status> {
        let claim = self.request_bytes.lock();
        let mut claim = claim.unwrap_or_else(PoisonError::into_inner);
        match claim.raise_to(bytes) {
            true => Ok(()),
            false => Err(Error::Overloaded.into()),
        }
    }
}

impl Admission {
    pub(super) fn new(limits: &Limits, responses: Responses) -> Self {
        Self {
            places: Arc::new(Semaphore::new(limits.max_concurrent_requests)),
            principals: Principals::new(limits.principal),
            request_bytes: Budget::new(REQUEST_BYTES),
            response_bytes: Budget::new(RESPONSE_BYTES),
            responses,
        }
    }

    /// A place, unless all are taken, or all that its connection may have.
    pub(super) fn admit(&self, connection: Option<&Arc<Connection>>) -> Result<Place, Error> {
        let share = connection
            .map(|connection| connection.admit(self.places.available_permits()))
            .transpose()?;
        let permit = Arc::clone(&self.places).try_acquire_owned();
        Ok(Place(Arc::new(Held {
            request_bytes: Mutex::new(
                self.request_bytes
                    .claim(connection.map(|connection| &connection.bytes().requests)),
            ),
            permits: Mutex::new(Some((share, permit.map_err(|_| Error::Overloaded)?, None))),
            connection: connection.cloned(),
        })))
    }

    /// Counts a request that has a place against the limits of its principal. What it counts as
    /// besides a request, such as a watch, is returned, for its handler to hold.
    pub(super) fn count(
        &self,
        principal: &Principal,
        rpc: &str,
        place: &Place,
    ) -> Result<Option<Count>, Error> {
        let counted = self
            .principals
            .count(principal.name(), principal.limits(), rpc)?;
        if counted.request.is_some() {
            place.hold(counted.request);
        }
        Ok(counted.watch_or_transfer)
    }

    /// The request, with its body bounded.
    pub(super) fn bound_request(
        request: http::Request<Body>,
        place: &Place,
    ) -> http::Request<RequestBody> {
        let is_stream = request.uri().path().ends_with("/ImportVoiceCalls");
        let place = (!is_stream).then(|| place.clone());
        request.map(|body| RequestBody::new(body, place, is_stream))
    }

    /// The same for a request of another service.
    pub(super) fn bound_other_request(request: http::Request<Body>) -> http::Request<Body> {
        let is_stream = request.uri().path().contains(".ServerReflection/");
        request.map(|body| Body::new(RequestBody::new(body, None, is_stream)))
    }

    /// Runs the handler of the request, whose message is decoded within.
    pub(super) fn run<F: Future>(
        place: &Place,
        handler: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        HELD_BYTES.scope(Arc::clone(&place.0) as _, handler)
    }

    /// The response, which holds the place until it has been written.
    pub(super) fn bound_response(
        &self,
        response: http::Response<Body>,
        place: Place,
    ) -> http::Response<Body> {
        let is_stream = response.extensions().get::<HasOwnPlace>().is_some();
        let connection = place.0.connection.as_ref();
        let share = connection.map(|connection| &connection.bytes().responses);
        let bytes = self.response_bytes.claim(share);
        let place = (!is_stream).then_some(place);
        response.map(|body| Body::new(ResponseBody::new(body, place, bytes, &self.responses)))
    }

    /// The response of another service, which ends if its client does not read it.
    pub(super) fn bound_other_response(
        &self,
        response: http::Response<Body>,
    ) -> http::Response<Body> {
        if response.body().is_end_stream() {
            return response;
        }
        let bytes = self.response_bytes.claim_of_all();
        response.map(|body| Body::new(ResponseBody::new(body, None, bytes, &self.responses)))
    }
}
