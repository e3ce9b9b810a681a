//! Requests whose bodies do not arrive, and responses that nobody takes, lose their places
//! after a bound.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};
use tonic::Code;
use voicecall::proto::{
    BatchCreateVoiceCallsRequest, GetVoiceCallRequest, ImportConflictPolicy, ListVoiceCallsRequest,
    VoiceCall,
};

use super::compression::{GZIP, compressed};
use crate::support::{
    Client, Server, assert_refused, create, eventually_within, frames,
    frames::{HEADERS, put_request},
    get, import, inbound,
    postgres::Cluster,
    raw::frame,
    retry_after,
    server::{Process, settings},
    writes::batch_of,
};

/// Longer than the bounds, which are tens of seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// Far less than a page.
const WINDOW: u32 = 65_535;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A connection that can be used badly. Clones share it.
#[derive(Clone)]
pub(super) struct Connection(SendRequest<Body>, String);

impl Connection {
    async fn open(endpoint: &str) -> Self {
        Self::open_with(endpoint, WINDOW).await
    }

    /// One that takes this much of each response without anybody reading it.
    pub(super) async fn open_with(endpoint: &str, window: u32) -> Self {
        let address = endpoint.strip_prefix("http://").expect("plaintext");
        let stream = TcpStream::connect(address).await.expect("it listens");
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(window)
            .initial_connection_window_size(WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .expect("it speaks HTTP/2");
        tokio::spawn(connection);
        Self(sender, endpoint.to_owned())
    }

    /// Sends a request; the response's headers are waited for, its body is not read.
    pub(super) fn send(
        &mut self,
        method: &str,
        body: Body,
    ) -> impl Future<Output = Response<Incoming>> + use<> {
        self.send_with(method, &[], body)
    }

    /// The same with these headers.
    fn send_with(
        &mut self,
        method: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> impl Future<Output = Response<Incoming>> + use<> {
        let response = self.try_send_with(method, headers, body);
        async move { response.await.expect("a response") }
    }

    /// Sends a request that may be reset, or come too late for the connection.
    pub(super) fn try_send(
        &mut self,
        method: &str,
        body: Body,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        self.try_send_with(method, &[], body)
    }

    fn try_send_with(
        &mut self,
        method: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        let path = match method.strip_prefix('/') {
            Some(path) => format!("{}/{path}", self.1),
            None => format!("{}/voicecall.v1.VoiceCallService/{method}", self.1),
        };
        let mut request = Request::post(path)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.0.send_request(request.body(body).expect("valid"))
    }
}

/// A body that never comes.
pub(super) fn never() -> Body {
    StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>()).boxed_unsync()
}

/// A body that never ends.
fn unended(bytes: Vec<u8>) -> Body {
    let bytes = stream::iter([Ok(Frame::data(bytes.into()))]);
    StreamBody::new(bytes.chain(stream::pending())).boxed_unsync()
}

/// A body of one message.
pub(super) fn message(message: &impl Message) -> Body {
    Full::new(Bytes::from(frame(&message.encode_to_vec()))).boxed_unsync()
}

fn list_all() -> Body {
    let list = ListVoiceCallsRequest {
        page_size: 1000,
        ..Default::default()
    };
    message(&list)
}

/// Calls that fill a page of two megabytes.
async fn create_large_calls(client: &mut Client) {
    let call = VoiceCall {
        call_summary: Some("x".repeat(60_000)),
        ..inbound()
    };
    let created = batch_of(vec![call; 30]).send(client).await;
    created.expect("it fits");
}

async fn is_served(client: &mut Client, uid: &str) -> bool {
    get(client, uid).await.is_ok()
}

#[tokio::test]
async fn requests_without_bodies_give_their_places_back() {
    let mut narrow = settings();
    narrow.api.max_concurrent_requests = 8;
    let server = Server::start_with(narrow).await;
    let mut client = server.client();
    let call = create(&mut client, inbound()).await;
    // None of which has more than its share.
    let mut connections = Vec::new();
    let mut open = JoinSet::new();
    // More than there are places: one that comes while a place is in use is refused.
    for _ in 0..16 {
        let mut connection = Connection::open(&server.endpoint).await;
        open.spawn(connection.send("GetVoiceCall", never()));
        connections.push(connection);
    }
    eventually_within(PATIENCE, "they have all places", async || {
        let refused = get(&mut client, &call.uid).await;
        refused.is_err_and(|status| status.code() == Code::ResourceExhausted)
    })
    .await;
    eventually_within(PATIENCE, "others are served again", async || {
        is_served(&mut client, &call.uid).await
    })
    .await;
    for response in open.join_all().await {
        assert_eq!(response.headers()["grpc-status"], "8");
    }
}

#[tokio::test]
async fn connections_that_take_all_they_can_leave_places_for_others() {
    const PLACES: usize = 64;
    const CONNECTIONS: usize = 8;
    let mut narrow = settings();
    narrow.api.max_concurrent_requests = PLACES;
    let server = Server::start_with(narrow).await;
    let mut client = server.client();
    let call = create(&mut client, inbound()).await;
    let mut connections = Vec::new();
    let mut open = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(&server.endpoint).await;
        for _ in 0..PLACES / 4 {
            open.spawn(connection.send("GetVoiceCall", never()));
        }
        connections.push(connection);
    }
    // By then each of them has what it can have.
    for _ in 0..PLACES {
        let refused = open.join_next().await.expect("more are sent");
        let refused = refused.expect("no panic");
        assert_eq!(refused.headers()["grpc-status"], "8");
    }
    for _ in 0..20 {
        assert!(is_served(&mut client, &call.uid).await);
    }
}

#[tokio::test]
async fn a_connection_leaves_transfers_to_others() {
    let mut narrow = settings();
    narrow.api.max_transfers = 8;
    let server = Server::start_with(narrow).await;
    let mut greedy = Connection::open(&server.endpoint).await;
    let mut responses = Vec::new();
    for _ in 0..8 {
        responses.push(greedy.send("ImportVoiceCalls", never()).await);
    }
    let is_refused = |response: &Response<Incoming>| response.headers().contains_key("grpc-status");
    assert_eq!(responses.iter().filter(|it| is_refused(it)).count(), 4);
    let mut other = Connection::open(&server.endpoint).await;
    let response = other.send("ImportVoiceCalls", never()).await;
    assert!(!is_refused(&response));
}

#[tokio::test]
async fn responses_that_nobody_takes_give_their_places_back() {
    let mut narrow = settings();
    narrow.api.max_concurrent_requests = 4;
    let server = Server::start_with(narrow).await;
    let mut client = server.client();
    create_large_calls(&mut client).await;
    let call = create(&mut client, inbound()).await;
    let mut unread = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::open(&server.endpoint).await;
        let response = connection.send("ListVoiceCalls", list_all()).await;
        unread.push((connection, response));
    }
    let refused = get(&mut client, &call.uid).await;
    assert_refused(refused, Code::ResourceExhausted, "OVERLOADED", &[]);
    eventually_within(PATIENCE, "others are served again", async || {
        is_served(&mut client, &call.uid).await
    })
    .await;
}

#[tokio::test]
async fn responses_that_nobody_takes_hold_little_memory() {
    // The default, in bytes, for what has not been written, and as much again for all else.
    const MAX_KIB: u64 = 2 * 128 * 1024;
    let url = Cluster::shared().await.database().await;
    let server = Process::start(&[("DATABASE_URL", &url)]);
    create_large_calls(&mut server.client()).await;
    let before = server.resident_kib();
    let mut connections = Vec::new();
    let mut unread = JoinSet::new();
    for _ in 0..8 {
        let mut connection = Connection::open(&server.endpoint).await;
        for _ in 0..50 {
            unread.spawn(connection.send("ListVoiceCalls", list_all()));
        }
        connections.push(connection);
    }
    let responses = unread.join_all().await;
    let growth = server.resident_kib().saturating_sub(before);
    assert!(
        growth < MAX_KIB,
        "{growth} KiB for {} responses",
        responses.len()
    );
}

/// Responses that HTTP/2 could take as they are, and clients that take one byte of each.
#[tokio::test]
async fn responses_of_a_call_that_nobody_takes_hold_little_memory() {
    // 64 KiB for each of the default number of requests in progress, and as much for all else.
    const MAX_KIB: u64 = 2 * 64 * 1024;
    const CONNECTIONS: usize = 12;
    const REQUESTS: u32 = 500;
    let url = Cluster::shared().await.database().await;
    let server = Process::start(&[("DATABASE_URL", &url)]);
    let mut client = server.client();
    let large = VoiceCall {
        call_summary: Some("x".repeat(60_000)),
        ..inbound()
    };
    let large = create(&mut client, large).await;
    let get_large = GetVoiceCallRequest {
        uid: large.uid,
        ..Default::default()
    };
    let get_large = get_large.encode_to_vec();
    let before = server.resident_kib();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let (mut connection, mut frames) = frames::connect_with_window(&server.endpoint, 1).await;
        let mut bytes = Vec::new();
        for request in 0..REQUESTS {
            put_request(&mut bytes, 1 + 2 * request, "GetVoiceCall", &get_large);
        }
        connection.write_all(&bytes).await.expect("it takes them");
        for _ in 0..REQUESTS {
            while frames.next().await.expect("the connection lives").kind != HEADERS {}
        }
        connections.push((connection, frames));
    }
    let growth = server.resident_kib().saturating_sub(before);
    assert!(growth < MAX_KIB, "{growth} KiB");
}

/// Requests of four megabytes each, which are a few kilobytes as they come.
#[tokio::test]
async fn what_is_decompressed_counts_until_the_request_has_ended() {
    // The default, in bytes, for large requests, and half as much again for all else.
    const MAX_KIB: u64 = 384 * 1024;
    let url = Cluster::shared().await.database().await;
    let server = Process::start(&[("DATABASE_URL", &url)]);
    let mut client = server.client();
    let call = create(&mut client, inbound()).await;
    let request = BatchCreateVoiceCallsRequest {
        request_id: "a".repeat(4 * 1024 * 1024 - 16),
        ..Default::default()
    };
    let message = compressed(&request.encode_to_vec());
    let before = server.peak_kib();
    let mut connections = Vec::new();
    let mut open = JoinSet::new();
    for _ in 0..4 {
        let mut connection = Connection::open(&server.endpoint).await;
        for _ in 0..50 {
            let body = unended(message.clone());
            open.spawn(connection.send_with("BatchCreateVoiceCalls", &GZIP, body));
        }
        connections.push(connection);
    }
    // Those that are not refused at once end when their time is over.
    for response in open.join_all().await {
        assert_eq!(response.headers()["grpc-status"], "8");
    }
    let growth = server.peak_kib() - before;
    assert!(growth < MAX_KIB, "{growth} KiB");
    assert!(is_served(&mut client, &call.uid).await);
}

#[tokio::test]
async fn an_import_that_sends_nothing_ends_with_a_reason() {
    let mut narrow = settings();
    narrow.api.max_transfers = 1;
    let server = Server::start_with(narrow).await;
    let mut client = server.client();
    let first = import::settings(ImportConflictPolicy::Skip);
    let silent = stream::iter([first]).chain(stream::pending());
    let response = client.import_voice_calls(silent).await.expect("it begins");
    let ended = response.into_inner().message().await;
    let status = ended.expect_err("it has sent no record");
    assert!(retry_after(&status).is_some());
    assert_refused::<()>(Err(status), Code::ResourceExhausted, "OVERLOADED", &[]);
}
