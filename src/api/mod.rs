//! The gRPC API over the store and the feed: from requests to commands and queries, from
//! calls and errors to responses.
//!
//! - `handlers`: what each RPC does
//! - `request`: from the wire to the domain, with all violations reported at once;
//!   `response`: to the wire, at most 2 MiB
//! - [`tokens`]: page tokens and resume tokens
//! - `middleware`: what every request passes through: deadlines, limits, request ids
//! - [`error`]: every error that leaves the service, in one place
//!
//! It deliberately knows nothing of SQL, of sockets, or of the changes that a call may
//! undergo.

mod context;
pub mod error;
mod handlers;
mod middleware;
mod request;
mod response;
pub mod tokens;
pub mod violations;

use tokio_util::sync::CancellationToken;
use tonic::{body::Body, service::Routes};
use tonic_health::server::HealthReporter;
use tower::util::BoxCloneSyncService;

use self::middleware::Middleware;
use crate::{
    feed::Feed, proto, proto::voice_call_service_server::VoiceCallServiceServer, store::Store,
};

/// The limits of the API.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most bytes in a request.
    pub max_request_bytes: usize,
    /// Concurrent requests; more are refused.
    pub max_concurrent_requests: usize,
    /// Concurrent watches; more are refused.
    pub max_watches: usize,
    /// Concurrent imports, exports and requests for statistics; more are refused.
    pub max_transfers: usize,
}

/// The API as a service of HTTP requests.
pub type Api =
    BoxCloneSyncService<http::Request<Body>, http::Response<Body>, std::convert::Infallible>;

/// The API over a store and a feed, and the handle for reporting its health. Requests are
/// refused once `draining` is cancelled.
///
/// # Errors
/// The descriptors cannot be read, which does not happen in a build that passed its tests.
pub fn api(
    store: Store,
    feed: Feed,
    limits: Limits,
    draining: CancellationToken,
) -> Result<(Api, HealthReporter), tonic_reflection::server::Error> {
    let service = handlers::service::Service::new(store, feed, limits, draining.clone());
    let service =
        VoiceCallServiceServer::new(service).max_decoding_message_size(limits.max_request_bytes);
    let (health_reporter, health) = tonic_health::server::health_reporter();
    let rest = Routes::new(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .prepare();
    let middleware = Middleware::new(service, rest, limits.max_concurrent_requests, draining);
    Ok((BoxCloneSyncService::new(middleware), health_reporter))
}

/// Reflection of everything that a client can see, including the details of errors.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
