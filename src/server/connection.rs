//! One client's connection: HTTP/2 over a socket, from its first byte to a
//! graceful end.

use std::{net, pin::pin, time::Duration};

use hyper::{body::Incoming, rt::Executor, server::conn::http2};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;
use tower::ServiceExt;
use tracing::debug;

use super::WriteCoalescer;
use crate::api::Api;

/// How long a client may take to send its first byte.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be silent before it is asked for a sign of life,
/// and how long that may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

const MAX_STREAMS: u32 = 1024;
/// A request of the largest size passes without waiting for a window update.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const STREAM_SEND_BUFFER_BYTES: usize = 64 * 1024;
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// Serves the connection on the thread that this runs on, until the client ends it, or
/// until `draining`: then streams under way end, and the client is told to go elsewhere.
pub(super) async fn serve(
    stream: net::TcpStream,
    api: Api,
    tasks: TaskTracker,
    draining: CancellationToken,
) {
    let stream = stream
        .set_nodelay(true)
        .and_then(|()| TcpStream::from_std(stream));
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => {
            debug!(%error, "cannot set up an accepted connection");
            return;
        }
    };
    let mut first = [0];
    tokio::select! {
        () = draining.cancelled() => return,
        peeked = timeout(FIRST_BYTE_TIMEOUT, stream.peek(&mut first)) => {
            if !matches!(peeked, Ok(Ok(1))) {
                return;
            }
        }
    }
    let service = api.map_request(|request: http::Request<Incoming>| request.map(Body::new));
    let connection = http2::Builder::new(Tasks(tasks))
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(STREAM_SEND_BUFFER_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES)
        .serve_connection(
            TokioIo::new(WriteCoalescer::new(stream)),
            TowerToHyperService::new(service),
        );
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection was lost");
    }
}

/// Runs a connection's streams as tasks of the server's.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}
