//! What every request passes on its way in and every answer on its way out: the
//! client's deadline, the limit on concurrent requests, a request id on each
//! answer, and the same errors for what the framework refuses as for what the
//! handlers do.

use std::{
    convert::Infallible,
    future::{self, Future},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{self, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderValue};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body};
use tower::Service;
use tracing::{debug, error};

use super::{
    context::Context,
    error::{Error, TooLarge},
};

/// Only these are limited and bounded in time: health must answer under load,
/// and reflection streams at the client's pace.
const OUR_METHODS: &str = "/voicecall.v1.VoiceCallService/";
const REQUEST_ID: &str = "x-request-id";
const DETAILS: &str = "grpc-status-details-bin";

/// The edge around the calls' service and the rest.
#[derive(Clone)]
pub(super) struct Middleware<C, R> {
    /// Straight to the calls' service: a router costs every call what only the
    /// few others need.
    calls: C,
    rest: R,
    shared: Arc<Shared>,
}

struct Shared {
    /// Requests under way.
    permits: Arc<Semaphore>,
    /// Cancelled when the server shuts down.
    draining: CancellationToken,
    request_ids: RequestIds,
    /// The headers of a refusal for overload, made once: an overload leaves no time.
    overloaded: HeaderMap,
}

impl<C, R> Middleware<C, R> {
    pub(super) fn new(
        calls: C,
        rest: R,
        max_concurrent: usize,
        draining: CancellationToken,
    ) -> Self {
        Self {
            calls,
            rest,
            shared: Arc::new(Shared {
                permits: Arc::new(Semaphore::new(max_concurrent)),
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
    C: Service<Request, Response = Response, Error = Infallible>,
    C::Future: Send + 'static,
    R: Service<Request, Response = Response, Error = Infallible>,
    R::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    /// Both services are always ready: a generated server and a router.
    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let request_id = self.shared.request_ids.next();
        let method = request.uri().path();
        if !method.starts_with(OUR_METHODS) {
            let method = method.to_owned();
            let response = self.rest.call(request);
            return Box::pin(async move { Ok(finish(response.await?, &method, request_id)) });
        }
        // First of all, because under an overload most requests get no further.
        let permit = match self.shared.admit() {
            Ok(permit) => permit,
            Err(error) => {
                let refusal = finish(self.shared.refuse(error), method, request_id);
                return Box::pin(future::ready(Ok(refusal)));
            }
        };
        let method = method.to_owned();
        let deadline = grpc_timeout(request.headers()).map(|timeout| Instant::now() + timeout);
        request.extensions_mut().insert(Context { deadline });
        let response = self.calls.call(request);
        Box::pin(async move {
            let response = within(deadline, response).await?;
            drop(permit);
            Ok(finish(response, &method, request_id))
        })
    }
}

impl Shared {
    fn admit(&self) -> Result<OwnedSemaphorePermit, Error> {
        if self.draining.is_cancelled() {
            return Err(Error::Draining);
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        permit.map_err(|_| Error::Overloaded)
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

/// What every answer gets on its way out.
fn finish(mut response: Response, method: &str, request_id: HeaderValue) -> Response {
    normalize(&mut response);
    log(method, &request_id, &response);
    response.headers_mut().insert(REQUEST_ID, request_id);
    response
}

async fn within<E>(
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

/// Gives the framework's own refusals, which carry no details, the form that
/// ours have.
fn normalize(response: &mut Response) {
    let headers = response.headers();
    let Some(code) = headers.get("grpc-status") else {
        return;
    };
    if headers.contains_key(DETAILS) {
        return;
    }
    let error = match Code::from_bytes(code.as_bytes()) {
        Code::Unimplemented => Error::UnknownMethod,
        // The length prefix is over the limit.
        Code::OutOfRange => Error::MessageTooLarge(TooLarge::Request),
        // The framework's word for a body that ends within a message, has none,
        // or has a bad prefix; ours would carry details.
        Code::Internal => Error::MalformedMessage,
        _ => return,
    };
    *response = refuse(error);
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

/// The `grpc-timeout` header: up to eight digits and a unit, as the gRPC over
/// HTTP/2 protocol has it. One that cannot be read is no timeout.
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

/// Makes the ids that answers and log lines share: a random part for this
/// process, and a count.
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
        // No secret, but the only way to keep it out of the table of headers that a
        // connection shares with its client (RFC 7541, 2.3.2): each id is sent once, would
        // push out what is sent again, and all in the table are searched for the next.
        id.set_sensitive(true);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_has_them() {
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
