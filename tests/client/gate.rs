//! A gate in front of the service: what it does with each request is laid down
//! beforehand, and it remembers what came.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, client, server, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// What the gate does with a request.
pub(crate) enum Act {
    /// Answers it like this; the service never sees it.
    Refuse(Status),
    /// Passes it on and cuts the connection instead of passing the answer back.
    LoseAnswer,
    /// Cuts the connection; the service never sees it.
    Cut,
    /// Never answers it; the service never sees it.
    Hold,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) headers: HeaderMap,
    pub(crate) at: Instant,
    message: Bytes,
}

impl Seen {
    /// The request's message.
    pub(crate) fn message<M: Message + Default>(&self) -> M {
        M::decode(&self.message[5..]).expect("a message of this type")
    }

    /// A header, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("text"))
    }
}

type Body = BoxBody<Bytes, hyper::Error>;

/// The gate.
pub(crate) struct Gate {
    pub(crate) endpoint: String,
    inner: Arc<Inner>,
}

struct Inner {
    service: String,
    acts: Mutex<VecDeque<Act>>,
    seen: Mutex<Vec<Seen>>,
}

impl Gate {
    /// A gate in front of the service at `endpoint`. When the acts are used up,
    /// it passes requests and answers on.
    pub(crate) async fn start(endpoint: &str, acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("bound");
        let inner = Arc::new(Inner {
            service: endpoint.trim_start_matches("http://").to_owned(),
            acts: Mutex::new(acts.into_iter().collect()),
            seen: Mutex::default(),
        });
        tokio::spawn({
            let inner = Arc::clone(&inner);
            async move {
                loop {
                    let (stream, _) = listener.accept().await.expect("it listens");
                    tokio::spawn(connection(stream, Arc::clone(&inner)));
                }
            }
        });
        Self {
            endpoint: format!("http://{address}"),
            inner,
        }
    }

    /// A gate with nothing behind it.
    pub(crate) async fn alone(acts: impl IntoIterator<Item = Act>) -> Self {
        Self::start("nowhere", acts).await
    }

    /// What came so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().expect("no test panics here").clone()
    }
}

async fn connection(stream: TcpStream, inner: Arc<Inner>) {
    let cut = CancellationToken::new();
    let service = service_fn(|request| {
        let (inner, cut) = (Arc::clone(&inner), cut.clone());
        async move { Ok::<_, hyper::Error>(answer(request, &inner, &cut).await) }
    });
    let serve = server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // However the client ends it.
        _ = serve => {}
        () = cut.cancelled() => {}
    }
}

async fn answer(
    request: Request<Incoming>,
    inner: &Inner,
    cut: &CancellationToken,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let message = body.collect().await.expect("it ends in order").to_bytes();
    let path = parts.uri.path();
    let seen = Seen {
        headers: parts.headers.clone(),
        at: Instant::now(),
        message: message.clone(),
    };
    inner.seen.lock().expect("no test panics here").push(seen);
    let act = inner.acts.lock().expect("no test panics here").pop_front();
    let passed_on = async || {
        let uri = format!("http://{}{path}", inner.service);
        let mut request = Request::post(uri).body(Full::new(message)).expect("valid");
        *request.headers_mut() = parts.headers;
        pass_on(request, &inner.service).await
    };
    match act {
        None => return passed_on().await,
        Some(Act::Refuse(status)) => {
            let response: Response<Full<Bytes>> = status.into_http();
            return response.map(|body| body.map_err(|never| match never {}).boxed());
        }
        Some(Act::LoseAnswer) => {
            passed_on().await;
            cut.cancel();
        }
        Some(Act::Cut) => cut.cancel(),
        Some(Act::Hold) => {}
    }
    pending().await
}

/// The service's whole answer.
async fn pass_on(request: Request<Full<Bytes>>, service: &str) -> Response<Body> {
    let stream = TcpStream::connect(service).await.expect("it listens");
    let (mut sender, connection) =
        client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("it speaks HTTP/2");
    tokio::spawn(connection);
    let response = sender.send_request(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("the answer ends in order");
    let trailers = body.trailers().cloned();
    let bytes = Full::new(body.to_bytes()).map_err(|never| match never {});
    let body = bytes.with_trailers(async move { trailers.map(Ok) });
    Response::from_parts(parts, body.boxed())
}
