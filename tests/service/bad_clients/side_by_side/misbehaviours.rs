//! What bad clients do, each for as long as its process lives.

use std::{future, pin::Pin, time::Duration};

use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{interval, sleep, timeout},
};
use voicecall::proto::{
    GetVoiceCallRequest, GetVoiceCallStatsRequest, ImportConflictPolicy, ListVoiceCallsRequest,
    Live, VoiceCallFilter, WatchVoiceCallsRequest, watch_voice_calls_request::Start,
};

use super::super::stalled::{Connection, message, never};
use crate::support::{
    frames,
    frames::{GOAWAY, put_headers, put_request, put_reset},
    import::settings,
    reference,
    server::client,
    watcher::{from, snapshot},
};

/// The client whose calls fill a page of two megabytes.
pub(super) const LARGE: &str = "large";

/// How long one waits after it was sent away, before it comes again.
const PAUSE: Duration = Duration::from_secs(1);
const WINDOW: u32 = 65_535;
const WIDE_WINDOW: u32 = 1 << 20;
/// The last stream that one connection is used for: there are twice as many.
const MAX_STREAM: u32 = 1 << 30;

/// Misbehaves at this endpoint for ever; calls the second when it has begun.
type Misbehave = fn(String, fn()) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One kind of bad client.
pub(super) struct Misbehaviour {
    pub(super) name: &'static str,
    pub(super) run: Misbehave,
}

/// The list of misbehaviours: each with its name and its function.
macro_rules! misbehaviours {
    ($($name:literal: $run:ident,)*) => {
        pub(super) const MISBEHAVIOURS: &[Misbehaviour] = &[$(Misbehaviour {
            name: $name,
            run: |endpoint, begun| Box::pin($run(endpoint, begun)),
        }),*];
    };
}

misbehaviours! {
    "2,000 requests without bodies": requests_without_bodies,
    "1,100 connections of one byte": connections_of_one_byte,
    "400 unread lists of two megabytes": unread_lists,
    "2,000 lists and 400 statistics cancelled": cancelled_reads,
    "16 clients of statistics": statistics,
    "64 silent imports": silent_imports,
    "a flood of requests reset at once": flood,
    "fan-outs of 100 cancelled 60 times": cancelled_fan_outs,
    "10,000 snapshots at once": snapshots,
}

/// Opens connections, and has this done on each of them so many times at once.
async fn on_connections<F: Future<Output = ()> + Send + 'static>(
    endpoint: &str,
    window: u32,
    (connections, times): (usize, usize),
    misbehave: impl Fn(Connection) -> F,
) -> JoinSet<()> {
    let mut open = JoinSet::new();
    for _ in 0..connections {
        let connection = Connection::open_with(endpoint, window).await;
        for _ in 0..times {
            open.spawn(misbehave(connection.clone()));
        }
    }
    open
}

/// On two connections; one that is answered is sent again.
async fn requests_without_bodies(endpoint: String, begun: fn()) {
    let send = |mut connection: Connection| async move {
        while connection.try_send("GetVoiceCall", never()).await.is_ok() {}
    };
    let open = on_connections(&endpoint, WINDOW, (2, 1000), send).await;
    // The first of them are on their way.
    sleep(PAUSE).await;
    begun();
    open.join_all().await;
    panic!("the connections were closed");
}

/// One that is closed is opened again after a pause.
async fn connections_of_one_byte(endpoint: String, begun: fn()) {
    let address = endpoint.strip_prefix("http://").expect("plaintext");
    let mut open = JoinSet::new();
    for _ in 0..1100 {
        let mut stream = connect_with_one_byte(address).await;
        let address = address.to_owned();
        open.spawn(async move {
            loop {
                if let Some(stream) = &mut stream {
                    while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
                }
                sleep(PAUSE).await;
                stream = connect_with_one_byte(&address).await;
            }
        });
    }
    begun();
    open.join_all().await;
}

async fn connect_with_one_byte(address: &str) -> Option<TcpStream> {
    let connect = timeout(PAUSE, TcpStream::connect(address)).await;
    let mut stream = connect.ok()?.ok()?;
    stream.write_all(b"P").await.ok()?;
    Some(stream)
}

/// On eight connections; one that has ended is sent again after a pause.
async fn unread_lists(endpoint: String, begun: fn()) {
    let list = ListVoiceCallsRequest {
        page_size: 1000,
        filter: Some(VoiceCallFilter {
            client_uids: vec![LARGE.to_owned()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let send = |mut connection: Connection| {
        let list = list.clone();
        async move {
            loop {
                let sent = connection.try_send("ListVoiceCalls", message(&list));
                let Ok(response) = sent.await else {
                    panic!("the connection was closed");
                };
                // A refusal is in the headers; what has begun is never read.
                if !response.headers().contains_key("grpc-status") {
                    let _kept = response;
                    future::pending::<()>().await;
                }
                sleep(PAUSE).await;
            }
        }
    };
    let open = on_connections(&endpoint, WINDOW, (8, 50), send).await;
    begun();
    open.join_all().await;
}

/// All at once on two connections, and cancelled a tenth of a second later; again after a while.
async fn cancelled_reads(endpoint: String, begun: fn()) {
    let mut connections = Vec::new();
    for _ in 0..2 {
        connections.push(Connection::open_with(&endpoint, WIDE_WINDOW).await);
    }
    let list = ListVoiceCallsRequest::default();
    let statistics = GetVoiceCallStatsRequest::default();
    begun();
    let mut pace = interval(Duration::from_secs(10));
    loop {
        pace.tick().await;
        let mut reads = JoinSet::new();
        for connection in &connections {
            for n in 0..1200 {
                let mut connection = connection.clone();
                let (method, body) = match n % 6 {
                    0 => ("GetVoiceCallStats", message(&statistics)),
                    _ => ("ListVoiceCalls", message(&list)),
                };
                reads.spawn(async move { connection.try_send(method, body).await.map(drop) });
            }
        }
        sleep(Duration::from_millis(100)).await;
        reads.shutdown().await;
    }
}

async fn statistics(endpoint: String, begun: fn()) {
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        let mut client = client(&endpoint);
        clients.spawn(async move {
            loop {
                let request = GetVoiceCallStatsRequest::default();
                if client.get_voice_call_stats(request).await.is_err() {
                    sleep(PAUSE).await;
                }
            }
        });
    }
    begun();
    clients.join_all().await;
}

/// One that has ended begins again after a pause.
async fn silent_imports(endpoint: String, begun: fn()) {
    let mut imports = JoinSet::new();
    for _ in 0..64 {
        let mut client = client(&endpoint);
        imports.spawn(async move {
            loop {
                let first = settings(ImportConflictPolicy::Skip);
                let silent = stream::iter([first]).chain(stream::pending());
                if let Ok(response) = client.import_voice_calls(silent).await {
                    let mut responses = response.into_inner();
                    while matches!(responses.message().await, Ok(Some(_))) {}
                }
                sleep(PAUSE).await;
            }
        });
    }
    sleep(PAUSE).await;
    begun();
    imports.join_all().await;
}

/// One connection, as fast as it goes.
async fn flood(endpoint: String, begun: fn()) {
    begun();
    loop {
        let (mut connection, mut frames) = frames::connect(&endpoint).await;
        let responses = tokio::spawn(async move { while frames.next().await.is_some() {} });
        let mut bytes = Vec::new();
        let mut stream = 1;
        while stream < MAX_STREAM {
            bytes.clear();
            for _ in 0..5000 {
                put_headers(&mut bytes, stream);
                put_reset(&mut bytes, stream);
                stream += 2;
            }
            if connection.write_all(&bytes).await.is_err() {
                break;
            }
        }
        responses.abort();
    }
}

/// Beside a watch on the same connection; again after a pause.
async fn cancelled_fan_outs(endpoint: String, begun: fn()) {
    let watch = WatchVoiceCallsRequest {
        start: Some(Start::Live(Live {})),
        ..Default::default()
    };
    let look_up = GetVoiceCallRequest {
        uid: reference().uid,
        ..Default::default()
    };
    let look_up = look_up.encode_to_vec();
    begun();
    loop {
        let (mut connection, mut frames) = frames::connect(&endpoint).await;
        let responses = tokio::spawn(async move {
            while let Some(frame) = frames.next().await {
                if frame.kind == GOAWAY {
                    return;
                }
            }
        });
        let mut bytes = Vec::new();
        put_request(&mut bytes, 1, "WatchVoiceCalls", &watch.encode_to_vec());
        let mut stream = 1;
        let mut is_open = connection.write_all(&bytes).await.is_ok();
        while is_open && !responses.is_finished() && stream < MAX_STREAM {
            for _ in 0..60 {
                let (mut requests, mut resets) = (Vec::new(), Vec::new());
                for _ in 0..100 {
                    stream += 2;
                    put_request(&mut requests, stream, "GetVoiceCall", &look_up);
                    put_reset(&mut resets, stream);
                }
                requests.append(&mut resets);
                is_open &= connection.write_all(&requests).await.is_ok();
            }
            sleep(PAUSE).await;
        }
        responses.abort();
    }
}

/// On forty connections, all of which are read.
async fn snapshots(endpoint: String, begun: fn()) {
    let watch = |mut connection: Connection| async move {
        let request = message(&from(snapshot()));
        let Ok(response) = connection.try_send("WatchVoiceCalls", request).await else {
            return;
        };
        let mut body = response.into_body();
        while body.frame().await.is_some() {}
    };
    let watches = on_connections(&endpoint, WIDE_WINDOW, (40, 250), watch).await;
    begun();
    watches.join_all().await;
    future::pending().await
}
