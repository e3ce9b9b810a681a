//! Everybody asks for a snapshot at once, as after a FEED_RESET, and some do not read theirs.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use tonic::{Code, Request};
use voicecall::proto::{
    BatchCreateVoiceCallsRequest, ListVoiceCallsRequest, VoiceCall, WatchVoiceCallsRequest,
    watch_voice_calls_response::Message,
};

use super::stalled::{Connection, message};
use crate::support::{
    Server, assert_refused, inbound,
    server::{Client, narrow_client, settings},
    watcher::{Watcher, from, snapshot},
};

const CALLS: usize = 1000;
const ASKING: usize = 20;
/// More than the 10 s for which a client may pause, less than the 60 s after which a stream that
/// nobody reads ends.
const IN_TURN: Duration = Duration::from_secs(30);

/// A server with more calls than one chunk of a snapshot has, which reads one snapshot at once.
async fn server_with_calls() -> Server {
    let mut one = settings();
    one.feed.max_snapshots = 1;
    let server = Server::start_with(one).await;
    let voice_calls = (0..CALLS).map(|n| VoiceCall {
        call_summary: Some(format!("{n:04000}")),
        ..inbound()
    });
    let all: Vec<VoiceCall> = voice_calls.collect();
    for voice_calls in all.chunks(CALLS / 4) {
        let request = BatchCreateVoiceCallsRequest {
            voice_calls: voice_calls.to_vec(),
            ..Default::default()
        };
        let created = server.client().batch_create_voice_calls(request).await;
        created.expect("they are created");
    }
    server
}

/// A client that has its turn, and reads no further.
async fn idle_reader(server: &Server) -> Watcher {
    let mut client = narrow_client(&server.endpoint);
    let mut watcher = Watcher::start(&mut client, from(snapshot()))
        .await
        .expect("it starts");
    let first = watcher.next().await.expect("it has its turn");
    assert!(matches!(first, Message::SnapshotChunk(chunk) if !chunk.voice_calls.is_empty()));
    watcher
}

/// Reads a whole snapshot; returns its calls, and whether it had to wait in line.
async fn read(client: &mut Client) -> (usize, bool) {
    let mut watcher = Watcher::start(client, from(snapshot()))
        .await
        .expect("it starts");
    let (mut calls, mut waited) = (0, false);
    loop {
        match watcher.next().await.expect("nobody is refused") {
            Message::SnapshotChunk(chunk) if chunk.voice_calls.is_empty() => waited = true,
            Message::SnapshotChunk(chunk) => calls += chunk.voice_calls.len(),
            Message::SnapshotComplete(_) => return (calls, waited),
            other => panic!("{other:?} within a snapshot"),
        }
    }
}

#[tokio::test]
async fn snapshots_wait_in_line_and_a_client_that_does_not_read_loses_its_turn() {
    let server = server_with_calls().await;
    let mut idle = idle_reader(&server).await;
    let mut clients: Vec<Client> = (0..ASKING).map(|_| server.client()).collect();
    let all = join_all(clients.iter_mut().map(read));
    let (all, list) = tokio::join!(all, async {
        let list = ListVoiceCallsRequest::default();
        server.client().list_voice_calls(list).await
    });
    list.expect("lists do not wait");
    assert!(all.iter().all(|(calls, waited)| *calls == CALLS && *waited));
    let ended = loop {
        if let Err(ended) = idle.next().await {
            break ended;
        }
    };
    let ended: Result<(), _> = Err(ended);
    assert_refused(ended, Code::ResourceExhausted, "WATCHER_TOO_SLOW", &[]);
}

/// Its stream is not polled, because its client has room for nothing.
#[tokio::test]
async fn a_client_that_reads_nothing_while_it_waits_in_line_holds_up_nobody() {
    let server = server_with_calls().await;
    let idle = idle_reader(&server).await;
    let mut stuck = Connection::open_with(&server.endpoint, 0).await;
    let stuck = stuck
        .send("WatchVoiceCalls", message(&from(snapshot())))
        .await;
    let mut client = server.client();
    let request = WatchVoiceCallsRequest {
        checkpoint_interval: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        ..from(snapshot())
    };
    let mut next = Watcher::start(&mut client, request)
        .await
        .expect("it waits");
    for _ in 0..2 {
        // The first message of the other, which comes ten times as often, is on its way.
        next.next().await.expect("it waits");
    }
    drop(idle);
    let served = timeout(IN_TURN, async {
        loop {
            let message = next.next().await.expect("nobody is refused");
            if matches!(message, Message::SnapshotChunk(chunk) if !chunk.voice_calls.is_empty()) {
                return;
            }
        }
    });
    served.await.expect("it has its turn soon");
    drop(stuck);
}

#[tokio::test]
async fn a_snapshot_waits_in_line_until_its_deadline() {
    let server = server_with_calls().await;
    let _idle = idle_reader(&server).await;
    let mut request = Request::new(from(snapshot()));
    request.set_timeout(Duration::from_millis(500));
    let stream = server.client().watch_voice_calls(request).await;
    let mut stream = stream.expect("it waits").into_inner();
    let ended = loop {
        match stream.message().await {
            Ok(Some(response)) => assert!(matches!(
                response.message,
                Some(Message::SnapshotChunk(chunk)) if chunk.voice_calls.is_empty()
            )),
            Ok(None) => panic!("it ends without a status"),
            Err(ended) => break ended,
        }
    };
    assert_eq!(ended.code(), Code::DeadlineExceeded);
}
