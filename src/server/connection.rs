//! One client's connection: HTTP/2 over a socket, from the first byte to its end: at its maximum
//! age, at shutdown, or to make room for another. Its streams end first, by the signal in
//! `api::Connection`; what they say then is up to `api/handlers`.

use std::{
    future,
    net::{self, IpAddr},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::{body::Incoming, rt::Executor, server::conn::http2};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::{
    Tls, WriteCoalescer,
    connections::Place,
    handshake::{self, Failure, Misdirected},
    read_turns::ReadTurns,
};
use crate::{api::Api, reload::Current};

/// How long a connection may be silent before the client is pinged, and how long its response
/// may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// The age at which a connection is closed differs by up to this part of the limit, so that
/// clients that connected at the same time do not come back at the same time.
const AGE_JITTER: f64 = 0.1;
/// GOAWAY follows the end of the streams, but no later than after this.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an idle client may take to acknowledge GOAWAY.
const GOAWAY_TIMEOUT: Duration = Duration::from_secs(1);
/// The same while its socket takes no more: a socket whose buffer is full takes more only when a
/// third of it is free, which on a slow link takes seconds.
const FULL_SOCKET_TIMEOUT: Duration = Duration::from_secs(5);
/// How long requests may take to end on a connection that makes room for another.
const DISPLACED_GRACE: Duration = Duration::from_secs(5);

/// How often the log says that clients speak the wrong protocol.
const MISDIRECTED_INTERVAL: Duration = Duration::from_secs(60);

/// Twice the requests that a connection may have in progress at the default limit, so that there
/// is room for watches, and for requests whose responses the client has yet to take.
const MAX_STREAMS: u32 = 512;
/// What a client may send before it is read: requests are read as they arrive, and only a stream
/// of requests waits. HTTP/2 holds what is not read, beside every budget.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
const STREAM_SEND_BUFFER_BYTES: usize = 16 * 1024;
/// Requests that the client has cancelled before they were taken up; one more ends the
/// connection. It is more than a turn of reading can bring, so that a client that cancels
/// many requests at once keeps its connection.
const MAX_RESETS: usize = 1024;
/// Beyond this a request is refused with HTTP's status 431, without a gRPC status. The API's
/// own limit is a quarter of it, and its error has a reason.
const MAX_HEADER_BYTES: u32 = 64 * 1024;

/// The limits of client connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Concurrent connections. When there are more, the address with the most loses idle ones
    /// first.
    pub max: usize,
    /// How long a client may take for the HTTP/2 preface and its SETTINGS.
    pub handshake_timeout: Duration,
    /// The age at which a connection is closed, give or take 10 %; `None`: no limit.
    pub max_age: Option<Duration>,
    /// How long requests in progress may take to end after that.
    pub grace: Duration,
}

/// What all connections have in common.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) api: Api,
    /// `None`: clients speak plaintext.
    pub(super) tls: Option<Current<Tls>>,
    pub(super) limits: Limits,
    pub(super) misdirected: Arc<MisdirectedClients>,
    /// Cancelled when the server shuts down.
    pub(super) draining: CancellationToken,
}

/// Clients that speak TLS to a port without it, or the other way round: the log says so, now and
/// then.
#[derive(Default)]
pub(super) struct MisdirectedClients(Mutex<Option<Instant>>);

impl MisdirectedClients {
    fn report(&self, peer: IpAddr, spoken: Misdirected) {
        let mut said_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said_at.is_some_and(|at| at.elapsed() < MISDIRECTED_INTERVAL) {
            return;
        }
        *said_at = Some(Instant::now());
        match spoken {
            Misdirected::Tls => warn!(%peer, "a client speaks TLS, but this port does not"),
            Misdirected::Plaintext => {
                warn!(%peer, "a client does not speak TLS, but this port does")
            }
        }
    }
}

/// Serves the connection on the current thread until the client closes it, or until it has to
/// end: at its maximum age, at shutdown (`draining` is cancelled), or to make room for another.
/// Then its streams end first, the client is sent GOAWAY, and the connection closes after the
/// requests in progress.
pub(super) async fn serve(stream: net::TcpStream, place: Place, serving: Serving) {
    let Some(stream) = establish(stream, &place, &serving).await else {
        return;
    };
    let Serving {
        api,
        limits,
        draining,
        ..
    } = serving;
    let place = Arc::new(place);
    let activity = &place.activity;
    let known = Arc::clone(&activity.connection);
    let service = api.map_request(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&known));
        request.map(Body::new)
    });
    let turns = ReadTurns::default();
    let connection = http2::Builder::new(Streams {
        place: Arc::clone(&place),
        begun: turns.begun(),
    })
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
    {
        let mut connection = pin!(connection);
        let ended = turns.run(async {
            tokio::select! {
                // HTTP/2 writes GOAWAY before anything else, so what the streams ended with is
                // written first.
                biased;
                ended = connection.as_mut() => ended,
                latest = end_streams(&place, limits, &draining) => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection.as_mut() => ended,
                        () = unacknowledged(&place, &turns) => Ok(()),
                        () = until(latest) => Ok(()),
                    }
                }
            }
        });
        if let Err(error) = ended.await {
            debug!(%error, "a connection was lost");
        }
    }
    // The connection is gone, and its streams end with it.
    activity.streams.close();
    activity.streams.wait().await;
}

/// The socket after the client's part of the handshake; `None` if that was not in time, or the
/// connection has to end.
async fn establish(
    stream: net::TcpStream,
    place: &Place,
    serving: &Serving,
) -> Option<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
    let stream = stream
        .set_nodelay(true)
        .and_then(|()| TcpStream::from_std(stream));
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => {
            debug!(%error, "cannot set up an accepted connection");
            return None;
        }
    };
    let tls = serving.tls.as_ref().and_then(Current::get);
    let handshake = handshake::complete(stream, tls.as_ref().map(|tls| tls.acceptor()));
    let connection = &place.activity.connection;
    let completed = tokio::select! {
        () = connection.ending().cancelled() => return None,
        completed = timeout(serving.limits.handshake_timeout, handshake) => completed.ok()?,
    };
    let (stream, certificate) = match completed {
        Ok(completed) => completed,
        Err(Failure::Misdirected(spoken)) => {
            serving.misdirected.report(connection.peer(), spoken);
            return None;
        }
        Err(Failure::Io(error)) => {
            debug!(%error, peer = %connection.peer(), "a handshake failed");
            return None;
        }
    };
    if let Some(certificate) = certificate {
        connection.set_certificate(certificate);
    }
    place.established();
    Some(stream)
}

/// Waits until the connection has to end, and ends its streams. Returns when its requests must
/// have ended; at shutdown the drain timeout says so.
async fn end_streams(
    place: &Place,
    limits: Limits,
    draining: &CancellationToken,
) -> Option<Instant> {
    let connection = &place.activity.connection;
    let age = limits.max_age.map(|age| {
        let jitter = rand::random_range(-AGE_JITTER..=AGE_JITTER);
        Instant::now() + age.mul_f64(1.0 + jitter)
    });
    let is_aged = tokio::select! {
        () = connection.ending().cancelled() => false,
        () = until(age) => true,
    };
    let grace = match is_aged {
        true => Some(limits.grace),
        false if draining.is_cancelled() => None,
        false => Some(DISPLACED_GRACE),
    };
    let latest = grace.map(|grace| Instant::now() + grace);
    // If it takes longer, GOAWAY does not wait for them.
    let _ = timeout(STREAMS_TIMEOUT, connection.end_streams()).await;
    latest
}

/// Returns once the connection has been idle for so long after GOAWAY that the client does not
/// acknowledge it. Responses may still be on their way when their streams have ended: HTTP/2 holds
/// what a slow client has yet to read.
async fn unacknowledged(place: &Place, turns: &ReadTurns) {
    let streams = &place.activity.streams;
    streams.close();
    loop {
        streams.wait().await;
        let moved = turns.moved();
        sleep(match turns.is_full() {
            true => FULL_SOCKET_TIMEOUT,
            false => GOAWAY_TIMEOUT,
        })
        .await;
        if streams.is_empty() && turns.moved() == moved {
            return;
        }
    }
}

/// Returns at this time; never, if there is none.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => future::pending().await,
    }
}

/// Runs the streams of a connection as tasks that it owns.
#[derive(Clone)]
struct Streams {
    place: Arc<Place>,
    begun: Arc<AtomicUsize>,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.place.touch();
        self.place.activity.streams.spawn(stream);
    }
}
