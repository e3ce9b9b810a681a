//! Requests that are cancelled as soon as they are sent. A client with a wide fan-out does so
//! when it has what it wanted, and loses nothing; one that does nothing else is served in
//! turns with all others.

use std::{collections::HashSet, num::NonZeroUsize, time::Duration};

use prost::Message;
use tokio::{io::AsyncWriteExt, time::timeout};
use voicecall::proto::{
    GetVoiceCallRequest, Live, WatchVoiceCallsRequest, watch_voice_calls_request::Start,
};

use super::stalled::{Connection, never};
use crate::support::{
    Server, create, frames,
    frames::{
        DATA, Frames, GOAWAY, HEADERS, PING, put_beginning, put_end, put_headers, put_ping,
        put_request, put_reset,
    },
    get, inbound, reference,
    server::settings,
};

const SOON: Duration = Duration::from_secs(20);

fn look_up() -> Vec<u8> {
    let request = GetVoiceCallRequest {
        uid: reference().uid,
        ..Default::default()
    };
    request.encode_to_vec()
}

/// Waits for such a frame of the stream; a connection that ends first fails the test.
async fn expect(frames: &mut Frames, kind: u8, stream: u32) {
    let wait = async {
        loop {
            let frame = frames.next().await.expect("the connection lives");
            assert_ne!(frame.kind, GOAWAY, "{frame:?}");
            if (frame.kind, frame.stream) == (kind, stream) {
                return;
            }
        }
    };
    timeout(SOON, wait).await.expect("it comes");
}

#[tokio::test]
async fn a_client_that_cancels_its_fan_outs_keeps_its_connection_and_its_watch() {
    let server = Server::start().await;
    create(&mut server.client(), reference()).await;
    let (mut connection, mut frames) = frames::connect(&server.endpoint).await;
    let watch = WatchVoiceCallsRequest {
        start: Some(Start::Live(Live {})),
        ..Default::default()
    };
    let mut bytes = Vec::new();
    put_request(&mut bytes, 1, "WatchVoiceCalls", &watch.encode_to_vec());
    connection.write_all(&bytes).await.expect("it takes it");
    // The first message is a checkpoint.
    expect(&mut frames, DATA, 1).await;

    let look_up = look_up();
    let mut stream = 1;
    for round in 0..40 {
        let mut bytes = Vec::new();
        let mut resets = Vec::new();
        for _ in 0..50 {
            stream += 2;
            put_request(&mut bytes, stream, "GetVoiceCall", &look_up);
            put_reset(&mut resets, stream);
        }
        // In every other round the server may have begun.
        if round % 2 == 0 {
            bytes.append(&mut resets);
        }
        connection.write_all(&bytes).await.expect("it takes them");
        connection.write_all(&resets).await.expect("it takes them");
        // Some rounds come without a pause.
        if round % 4 != 3 {
            continue;
        }
        let mut bytes = Vec::new();
        stream += 2;
        put_request(&mut bytes, stream, "GetVoiceCall", &look_up);
        connection.write_all(&bytes).await.expect("it takes it");
        expect(&mut frames, HEADERS, stream).await;
    }
    // And all at once.
    let mut bytes = Vec::new();
    for _ in 0..3000 {
        stream += 2;
        put_request(&mut bytes, stream, "GetVoiceCall", &look_up);
        put_reset(&mut bytes, stream);
    }
    connection.write_all(&bytes).await.expect("it takes them");
    create(&mut server.client(), inbound()).await;
    expect(&mut frames, DATA, 1).await;
}

/// The messages of refused requests arrive after the refusal could have been sent.
#[tokio::test]
async fn a_client_whose_requests_are_refused_keeps_its_connection_and_its_watch() {
    const AT_ONCE: u32 = 200;
    const ROUNDS: u32 = 10;
    let mut narrow = settings();
    narrow.api.max_concurrent_requests = 1;
    let server = Server::start_with(narrow).await;
    let mut other = Connection::open_with(&server.endpoint, 65_535).await;
    let occupied = tokio::spawn(other.send("GetVoiceCall", never()));
    let (mut connection, mut frames) = frames::connect(&server.endpoint).await;
    let look_up = look_up();
    let mut first = 1;
    let mut refused = 0;
    for _ in 0..ROUNDS {
        let streams = (0..AT_ONCE).map(move |n| first + 2 * n);
        first += 2 * AT_ONCE;
        let mut bytes = Vec::new();
        for stream in streams.clone() {
            put_beginning(&mut bytes, stream, "GetVoiceCall");
        }
        put_ping(&mut bytes);
        connection.write_all(&bytes).await.expect("it takes them");
        let mut responded = HashSet::new();
        let mut is_read = false;
        while !is_read || responded.len() < streams.len() {
            let frame = timeout(SOON, frames.next()).await.expect("it comes");
            let frame = frame.expect("the connection lives");
            assert_ne!(frame.kind, GOAWAY, "{frame:?} after {refused} responses");
            match frame.kind {
                HEADERS => drop(responded.insert(frame.stream)),
                PING => {
                    is_read = true;
                    let mut bytes = Vec::new();
                    for stream in streams.clone() {
                        put_end(&mut bytes, stream, &look_up);
                    }
                    connection.write_all(&bytes).await.expect("it takes them");
                }
                _ => {}
            }
        }
        refused += responded.len();
    }
    assert!(
        !occupied.is_finished(),
        "they were refused for want of a place"
    );
}

/// The client has a thread of its own, so that it is faster than the server, whose only thread
/// it shares with the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_cancelled_requests_is_served_in_turns_with_all_others() {
    let mut single = settings();
    single.workers = NonZeroUsize::MIN;
    let server = Server::start_with(single).await;
    create(&mut server.client(), reference()).await;
    let (mut connection, mut frames) = frames::connect(&server.endpoint).await;
    let flood = tokio::spawn(async move {
        let mut stream = 1;
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            for _ in 0..5000 {
                put_headers(&mut bytes, stream);
                put_reset(&mut bytes, stream);
                stream += 2;
            }
            connection.write_all(&bytes).await.expect("it takes them");
        }
    });
    let responses = tokio::spawn(async move {
        loop {
            let frame = frames.next().await.expect("the connection lives");
            assert_ne!(frame.kind, GOAWAY, "{frame:?}");
        }
    });
    let mut client = server.client();
    for _ in 0..20 {
        let read = timeout(SOON, get(&mut client, &reference().uid)).await;
        read.expect("it has its turn").expect("it is served");
    }
    assert!(!flood.is_finished() && !responses.is_finished());
}
