//! One client's connection: HTTP/2 over a socket, from the first byte to a graceful shutdown.

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

use super::{WriteCoalescer, read_turns::ReadTurns};
use crate::api::Api;

/// How long a client may take to send its first byte.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be silent before the client is pinged, and how long its response
/// may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

const MAX_STREAMS: u32 = 1024;
/// A request of the default maximum size needs no window update.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const STREAM_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Requests that the client has cancelled before they were taken up; one more ends the
/// connection. It is more than a turn of reading can bring, so that whoever cancels many
/// requests at once keeps the connection.
const MAX_RESETS: usize = 1024;
/// Beyond this a request is refused with HTTP's status 431, without a gRPC status. The API's
/// own limit is a quarter of it, and its error has a reason.
const MAX_HEADER_BYTES: u32 = 64 * 1024;

/// Serves the connection on the current thread until the client closes it. When `draining` is
/// cancelled, the client is sent GOAWAY, and the connection closes after the streams in
/// progress.
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
    let turns = ReadTurns::default();
    let connection = http2::Builder::new(Tasks(tasks))
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(STREAM_SEND_BUFFER_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .serve_connection(
            TokioIo::new(WriteCoalescer::new(turns.limit(stream))),
            TowerToHyperService::new(service),
        );
    let mut connection = pin!(connection);
    let ended = turns.run(async {
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = draining.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    });
    let ended = ended.await;
    if let Err(error) = ended {
        debug!(%error, "a connection was lost");
    }
}

/// Runs the streams of a connection as tasks that the server owns.
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
