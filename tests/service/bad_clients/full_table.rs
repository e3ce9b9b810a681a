//! All the connections that there may be, most of them from one address.

use prost::Message;
use voicecall::proto::{WatchVoiceCallsResponse, watch_voice_calls_response};

use crate::support::{
    Server,
    server::settings,
    watcher::{from, live},
    wire_connection::{DATA, Frame, Frames, GOAWAY, HEADERS, closed, socket},
};

const WATCH: &str = "/voicecall.v1.VoiceCallService/WatchVoiceCalls";

/// A server that has places for four.
async fn small_server() -> Server {
    let mut few = settings();
    few.connections.max = 4;
    Server::start_with(few).await
}

/// A connection from this address that has been used.
async fn used(server: &Server, from: &str) -> Frames {
    let mut connection = Frames::connect(&server.endpoint, from).await;
    assert!(connection.is_served().await);
    connection
}

/// A connection from this address with a watch.
async fn watching(server: &Server, from_address: &str) -> Frames {
    let mut connection = Frames::connect(&server.endpoint, from_address).await;
    let request = from(live()).encode_to_vec();
    connection.request(WATCH, &request).await;
    while connection.next().await.expect("it is served").kind != DATA {}
    connection
}

/// Asserts that the watch ended with a checkpoint and trailers, and GOAWAY came after them.
pub(super) fn assert_ended_in_order(frames: &[Frame]) {
    let place = |wanted: &dyn Fn(&Frame) -> bool| frames.iter().position(wanted);
    let trailers = place(&|frame| frame.kind == HEADERS && frame.ends_stream());
    let trailers = trailers.unwrap_or_else(|| panic!("the stream ends with trailers: {frames:?}"));
    let goaway = place(&|frame| frame.kind == GOAWAY).expect("it is sent away");
    assert!(trailers < goaway, "the stream ends before: {frames:?}");
    let last = frames[..trailers].iter().rfind(|frame| frame.kind == DATA);
    let last = &last.expect("a last message").payload[5..];
    let last = WatchVoiceCallsResponse::decode(last).expect("a message");
    let is_checkpoint = matches!(
        last.message,
        Some(watch_voice_calls_response::Message::Checkpoint(_))
    );
    assert!(is_checkpoint, "{last:?}");
}

#[tokio::test]
async fn the_address_with_the_most_loses_the_one_that_was_idle_for_longest() {
    let server = small_server().await;
    let mut other = used(&server, "127.0.0.1").await;
    let mut first = used(&server, "127.0.0.2").await;
    let mut second = used(&server, "127.0.0.2").await;
    let mut third = used(&server, "127.0.0.2").await;
    assert!(first.is_served().await);
    let mut newcomer = used(&server, "127.0.0.3").await;
    let end = second.rest().await;
    assert!(end.iter().any(|frame| frame.kind == GOAWAY), "{end:?}");
    for connection in [&mut other, &mut first, &mut third, &mut newcomer] {
        assert!(connection.is_served().await, "it has kept its place");
    }
}

#[tokio::test]
async fn connections_in_use_are_the_last_to_go_and_only_for_an_address_that_has_fewer() {
    let server = small_server().await;
    let mut other = used(&server, "127.0.0.1").await;
    let mut first = watching(&server, "127.0.0.2").await;
    let mut second = watching(&server, "127.0.0.2").await;
    let mut idle = used(&server, "127.0.0.2").await;

    let mut third = used(&server, "127.0.0.3").await;
    assert!(!idle.rest().await.is_empty(), "the idle one goes first");
    let mut fourth = used(&server, "127.0.0.4").await;
    assert_ended_in_order(&first.rest().await);

    // Now all have one. Another of the same address has nothing to displace but its own.
    let mut refused = socket(&server.endpoint, "127.0.0.2").await;
    closed(&mut refused).await;
    for connection in [&mut other, &mut second, &mut third, &mut fourth] {
        assert!(connection.is_served().await, "it has kept its place");
    }
}
