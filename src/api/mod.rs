//! The gRPC API over the store and the feed: from requests to commands and queries, from
//! calls and errors to responses.
//!
//! - `handlers`: what each RPC does
//! - `request`: from the wire to the domain, with all violations reported at once;
//!   `response`: to the wire, at most 2 MiB
//! - [`tokens`]: page tokens and resume tokens
//! - `access`: who may call what
//! - `admission`: what a request may hold, and for how long
//! - `middleware`: what every request passes through: deadlines, limits, request ids;
//!   `ending_body`: the end of health streams when their connection closes
//! - `reflection`: the proto files, for clients that have none
//! - [`error`]: every error that leaves the service, in one place; `framework`: those that
//!   the framework finds
//!
//! It deliberately knows nothing of SQL, of sockets, or of the changes that a call may
//! undergo.

mod access;
mod admission;
mod context;
mod ending_body;
pub mod error;
mod framework;
mod handlers;
mod middleware;
mod reflection;
mod request;
mod response;
#[cfg(test)]
mod tests;
pub mod tokens;
pub mod violations;

pub use access::Access;
pub use context::Connection;

use tokio_util::sync::CancellationToken;
use tonic::{body::Body, codec::CompressionEncoding::Gzip, service::Routes};
use tonic_health::server::HealthReporter;
use tower::util::BoxCloneSyncService;

pub use self::{admission::Responses, reflection::InvalidDescriptors};
use self::{
    middleware::Middleware,
    reflection::{ProtoFiles, Reflection, V1Alpha},
};
use crate::{
    auth, feed::Feed, proto, proto::voice_call_service_server::VoiceCallServiceServer, store::Store,
};

/// The most bytes in a request of the other services, which is a name.
const MAX_OTHER_REQUEST_BYTES: usize = 4096;
/// A connection may have this part of the concurrent requests in progress.
const CONNECTION_PART: usize = 4;

/// The limits of the API.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most bytes in a request.
    pub max_request_bytes: usize,
    /// Whether responses are compressed for clients that accept it. Compressed requests are
    /// accepted in any case.
    pub compress_responses: bool,
    /// Concurrent requests; more are refused.
    pub max_concurrent_requests: usize,
    /// Concurrent watches; more are refused.
    pub max_watches: usize,
    /// Concurrent imports, exports and requests for statistics; more are refused.
    pub max_transfers: usize,
    /// The limits of each principal that has none of its own.
    pub principal: auth::Limits,
}

impl Limits {
    /// The requests that one connection may have in progress: a quarter of all, so that one
    /// client does not take the service from all others.
    #[must_use]
    pub fn connection_share(&self) -> usize {
        self.max_concurrent_requests.div_ceil(CONNECTION_PART)
    }
}

/// The API as a service of HTTP requests.
pub type Api =
    BoxCloneSyncService<http::Request<Body>, http::Response<Body>, std::convert::Infallible>;

/// The API over a store and a feed, the handle for reporting its health, and the responses
/// that have to be watched over. Requests are refused once `draining` is cancelled.
///
/// # Errors
/// The descriptors cannot be read, which does not happen in a build that passed its tests.
pub fn api(
    store: Store,
    feed: Feed,
    limits: Limits,
    access: Access,
    draining: CancellationToken,
) -> Result<(Api, HealthReporter, Responses), InvalidDescriptors> {
    let service = handlers::service::Service::new(store, feed, limits);
    let mut service = VoiceCallServiceServer::new(service)
        .max_decoding_message_size(limits.max_request_bytes)
        .accept_compressed(Gzip);
    if limits.compress_responses {
        service = service.send_compressed(Gzip);
    }
    let (health_reporter, health) = tonic_health::server::health_reporter();
    let health = health
        .max_decoding_message_size(MAX_OTHER_REQUEST_BYTES)
        .accept_compressed(Gzip);
    let reflection = Reflection::server(proto_files()?)
        .max_decoding_message_size(MAX_OTHER_REQUEST_BYTES)
        .accept_compressed(Gzip);
    let rest = Routes::new(health)
        .add_service(V1Alpha(reflection.clone()))
        .add_service(reflection)
        .prepare();
    let responses = Responses::default();
    let middleware = Middleware::new(service, rest, &limits, responses.clone(), access, draining);
    let api = BoxCloneSyncService::new(middleware);
    Ok((api, health_reporter, responses))
}

/// Everything that a client can see, including the details of errors.
fn proto_files() -> Result<ProtoFiles, InvalidDescriptors> {
    ProtoFiles::default()
        .add(proto::DESCRIPTORS)?
        .add(tonic_types::pb::FILE_DESCRIPTOR_SET)?
        .add(tonic_health::pb::FILE_DESCRIPTOR_SET)?
        .add(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)?
        .add(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
}
