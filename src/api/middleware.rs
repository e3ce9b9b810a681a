//! What every request and response passes through: the limit on metadata, the client's
//! deadline, the limit on concurrent requests and those of the caller, an `x-request-id` on each
//! response, and the same form of error for what the framework refuses as for what the handlers
//! refuse.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{self, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body};
use tower::Service;
use tracing::{debug, error};

use super::{
    Limits,
    access::{Access, CALL_SERVICE, names_unknown_key},
    admission::{self, Admission, Count, Place, RequestBody, Responses},
    context::{Connection, Context},
    ending_body,
    error::{Error, TooLarge},
    framework,
};
use crate::auth::Principal;

const REQUEST_ID: &str = "x-request-id";
/// The largest metadata of a request, as HTTP/2 counts it (RFC 9113, 6.5.2). HTTP/2's own limit
/// is larger: beyond it a request is refused before it gets here, and without a reason.
const MAX_METADATA_BYTES: usize = 16 * 1024;
const FIELD_OVERHEAD_BYTES: usize = 32;
/// The compressions that are accepted in requests, sent with each response.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
const ACCEPTED_ENCODINGS: HeaderValue = HeaderValue::from_static("gzip,identity");

/// The middleware around the call service and the other services.
#[derive(Clone)]
pub(super) struct Middleware<C, R> {
    /// The call service, without a router: routing would cost every request what only the
    /// few others need.
    calls: C,
    rest: R,
    shared: Arc<Shared>,
}

struct Shared {
    admission: Admission,
    access: Access,
    /// Cancelled when the server shuts down.
    draining: CancellationToken,
    request_ids: RequestIds,
    /// The headers of a refusal for overload. They are built once, because a refusal has to
    /// be cheap when the server is overloaded.
    overloaded: HeaderMap,
}

impl<C, R> Middleware<C, R> {
    pub(super) fn new(
        calls: C,
        rest: R,
        limits: &Limits,
        responses: Responses,
        access: Access,
        draining: CancellationToken,
    ) -> Self {
        Self {
            calls,
            rest,
            shared: Arc::new(Shared {
                admission: Admission::new(limits, responses),
                access,
                draining,
                request_ids: RequestIds::new(),
                overloaded: refuse(Error::Overloaded).into_parts().0.headers,
            }),
        }
    }
}

type Request = http::Request<Body>;
type Response = http::Response<Body>;

impl<C, R> Service<Request> for Middleware<C, R>
where
    C: Service<http::Request<RequestBody>, Response = Response, Error = Infallible>
        + Clone
        + Send
        + 'static,
    C::Future: Send + 'static,
    R: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    R::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = ResponseFuture;

    /// Both services are always ready: one is a generated server, the other a router.
    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let request_id = self.shared.request_ids.next();
        if !is_grpc(request.headers()) {
            let refusal = unsupported_media_type(request_id);
            return Box::pin(respond_after(request, refusal));
        }
        if metadata_bytes(&request) > MAX_METADATA_BYTES {
            let error = Error::MessageTooLarge(TooLarge::Metadata);
            return self.shared.refusal(request, error, request_id);
        }
        // This comes before all that costs more, because under overload most requests get no
        // further.
        let held = match self.shared.admit(&request) {
            Ok(held) => held,
            Err(error) => return self.shared.refusal(request, error, request_id),
        };
        match self.shared.access.allow(&request) {
            Ok(principal) => self.run(request, held, principal, request_id),
            Err(error) if names_unknown_key(&error) => {
                let mut this = self.clone();
                Box::pin(async move {
                    this.shared.access.refresh_keys().await;
                    match this.shared.access.allow(&request) {
                        Ok(principal) => this.run(request, held, principal, request_id).await,
                        Err(error) => this.shared.refusal(request, error, request_id).await,
                    }
                })
            }
            Err(error) => self.shared.refusal(request, error, request_id),
        }
    }
}

/// What a request holds while it is in progress.
enum Held {
    /// A place of the call service.
    Call(Place),
    /// One of the connection's few for the other services.
    Other(Option<OwnedSemaphorePermit>),
}

type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl<C, R> Middleware<C, R>
where
    C: Service<http::Request<RequestBody>, Response = Response, Error = Infallible>,
    C::Future: Send + 'static,
    R: Service<Request, Response = Response, Error = Infallible>,
    R::Future: Send + 'static,
{
    /// Has a request served that may be.
    fn run(
        &mut self,
        mut request: Request,
        held: Held,
        principal: Option<Arc<Principal>>,
        request_id: HeaderValue,
    ) -> ResponseFuture {
        let method = request.uri().path().to_owned();
        let shared = Arc::clone(&self.shared);
        match held {
            Held::Call(place) => {
                let counted = match self.shared.count(principal.as_ref(), &request, &place) {
                    Ok(counted) => counted,
                    Err(error) => return self.shared.refusal(request, error, request_id),
                };
                let timeout = grpc_timeout(request.headers());
                let deadline = timeout.map(|timeout| Instant::now() + timeout);
                request.extensions_mut().insert(Context {
                    deadline,
                    principal,
                    place: Some(place.clone()),
                    counted,
                });
                let response = self.calls.call(Admission::bound_request(request, &place));
                let response = Admission::run(&place, response);
                Box::pin(async move {
                    let response = with_deadline(deadline, response).await?;
                    let response = finish(response, &method, request_id);
                    Ok(shared.admission.bound_response(response, place))
                })
            }
            Held::Other(permit) => {
                let connection = request.extensions().get::<Arc<Connection>>().cloned();
                let response = self.rest.call(Admission::bound_other_request(request));
                Box::pin(async move {
                    let response = finish(response.await?, &method, request_id);
                    let response = ending_body::end_with(connection, permit, response);
                    Ok(shared.admission.bound_other_response(response))
                })
            }
        }
    }
}

impl Shared {
    fn admit(&self, request: &Request) -> Result<Held, Error> {
        let connection = request.extensions().get::<Arc<Connection>>();
        // Health checks must work under load.
        if !request.uri().path().starts_with(CALL_SERVICE) {
            let permit = connection.map(|connection| connection.admit_other());
            return permit.transpose().map(Held::Other);
        }
        if self.draining.is_cancelled() {
            return Err(Error::Draining);
        }
        self.admission.admit(connection).map(Held::Call)
    }

    /// Counts the request against the limits of its principal.
    fn count(
        &self,
        principal: Option<&Arc<Principal>>,
        request: &Request,
        place: &Place,
    ) -> Result<Option<Arc<Count>>, Error> {
        let Some(principal) = principal else {
            return Ok(None);
        };
        let path = request.uri().path();
        let rpc = path.strip_prefix(CALL_SERVICE).unwrap_or_default();
        let counted = self.admission.count(principal, rpc, place)?;
        Ok(counted.map(Arc::new))
    }

    fn refusal(&self, request: Request, error: Error, request_id: HeaderValue) -> ResponseFuture {
        let refusal = finish(self.refuse(error), request.uri().path(), request_id);
        Box::pin(respond_after(request, refusal))
    }

    fn refuse(&self, error: Error) -> Response {
        if error != Error::Overloaded {
            return refuse(error);
        }
        let mut response = Response::default();
        *response.headers_mut() = self.overloaded.clone();
        response
    }
}

/// The response, once the request has arrived.
async fn respond_after(request: Request, response: Response) -> Result<Response, Infallible> {
    admission::read_rest(request.into_body()).await;
    Ok(response)
}

/// Completes a response before it is sent.
fn finish(mut response: Response, method: &str, request_id: HeaderValue) -> Response {
    framework::complete_response(&mut response);
    log(method, &request_id, &response);
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id);
    headers.insert(ACCEPT_ENCODING, ACCEPTED_ENCODINGS);
    response
}

async fn with_deadline<E>(
    deadline: Option<Instant>,
    response: impl Future<Output = Result<Response, E>>,
) -> Result<Response, E> {
    match deadline {
        None => response.await,
        Some(deadline) => timeout_at(deadline, response)
            .await
            .unwrap_or_else(|_| Ok(refuse(Error::DeadlineExceeded))),
    }
}

fn refuse(error: Error) -> Response {
    Status::from(error).into_http()
}

/// Whether the content type is gRPC's, with messages in protobuf's format or in one that is
/// not named: `application/grpc`, also with a suffix or parameters.
fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let suffix = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    matches!(suffix, Some([] | [b'+' | b';', ..]))
}

/// The response to what is not gRPC, as the gRPC over HTTP/2 protocol defines it. A status of
/// gRPC would mean nothing to its client.
fn unsupported_media_type(request_id: HeaderValue) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response.headers_mut().insert(REQUEST_ID, request_id);
    response
}

fn metadata_bytes(request: &Request) -> usize {
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len());
    let path = request.uri().path().len();
    fields
        .chain([path])
        .map(|len| len + FIELD_OVERHEAD_BYTES)
        .sum()
}

fn log(method: &str, request_id: &HeaderValue, response: &Response) {
    let Some(status) = response.headers().get("grpc-status") else {
        return;
    };
    let code = Code::from_bytes(status.as_bytes());
    let request_id = request_id.to_str().unwrap_or_default();
    match code {
        Code::Ok => {}
        Code::Internal => error!(method, request_id, "internal error"),
        _ => debug!(method, request_id, code = code.description(), "refused"),
    }
}

/// Parses the `grpc-timeout` header: up to eight digits and a unit, as in the gRPC over
/// HTTP/2 protocol. An invalid one is ignored.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// Generates the ids that connect responses with log lines: a random part for this
/// process, and a counter.
struct RequestIds {
    process: u32,
    count: AtomicU64,
}

impl RequestIds {
    fn new() -> Self {
        Self {
            process: rand::random(),
            count: AtomicU64::new(0),
        }
    }

    fn next(&self) -> HeaderValue {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let text = format!("{:08x}-{count:x}", self.process);
        let id = HeaderValue::from_str(&text);
        let mut id = id.unwrap_or(HeaderValue::from_static("-"));
        // The id is no secret, but this keeps it out of the dynamic table of HPACK (RFC 7541,
        // 2.3.2): each id is sent only once, would evict headers that are sent again, and
        // would make every later search of the table longer.
        id.set_sensitive(true);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_parsed_as_the_protocol_defines_them() {
        for (text, millis) in [
            ("1S", Some(1_000)),
            ("250m", Some(250)),
            ("2M", Some(120_000)),
            ("1H", Some(3_600_000)),
            ("5000u", Some(5)),
            ("99999999n", Some(99)),
            ("", None),
            ("S", None),
            ("1", None),
            ("1x", None),
            ("-1S", None),
            ("123456789S", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            let timeout = grpc_timeout(&headers).map(|timeout| timeout.as_millis());
            assert_eq!(timeout, millis, "{text:?}");
        }
    }
}
