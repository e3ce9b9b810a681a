//! Requests that are cancelled as soon as they are sent. A client with a wide fan-out does so
//! when it has what it wanted, and loses nothing; one that does nothing else loses its
//! connection, and nobody else anything.

use std::time::Duration;

use prost::Message;
use tokio::{io::AsyncWriteExt, time::timeout};
use voicecall::proto::{
    GetVoiceCallRequest, Live, WatchVoiceCallsRequest, watch_voice_calls_request::Start,
};

use crate::support::{
    Server, create, frames,
    frames::{DATA, Frames, GOAWAY, HEADERS, put_headers, put_request, put_reset},
    get, inbound, reference,
};

const SOON: Duration = Duration::from_secs(20);
/// GOAWAY's error code for a client that does too much.
const ENHANCE_YOUR_CALM: u32 = 11;

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
        let mut bytes = Vec::new();
        stream += 2;
        put_request(&mut bytes, stream, "GetVoiceCall", &look_up);
        connection.write_all(&bytes).await.expect("it takes it");
        expect(&mut frames, HEADERS, stream).await;
    }
    create(&mut server.client(), inbound()).await;
    expect(&mut frames, DATA, 1).await;
}

/// The client has a thread of its own: it must be faster than the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_cancelled_requests_ends_its_connection_and_harms_no_other() {
    let server = Server::start().await;
    create(&mut server.client(), reference()).await;
    let (mut connection, mut frames) = frames::connect(&server.endpoint).await;
    let flood = tokio::spawn(async move {
        for chunk in 0_u32.. {
            let mut bytes = Vec::new();
            for request in 0..50_000 {
                let stream = (chunk * 50_000 + request) * 2 + 1;
                put_headers(&mut bytes, stream);
                put_reset(&mut bytes, stream);
            }
            // The server closes the connection.
            if connection.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let goaway = tokio::spawn(async move {
        loop {
            let frame = frames.next().await.expect("GOAWAY comes first");
            if frame.kind == GOAWAY {
                return frame.payload;
            }
        }
    });
    let mut client = server.client();
    for _ in 0..100 {
        let read = timeout(SOON, get(&mut client, &reference().uid)).await;
        read.expect("it is served").expect("it is served");
    }
    timeout(SOON, flood)
        .await
        .expect("it ends")
        .expect("no panic");
    let goaway = timeout(SOON, goaway).await.expect("it comes");
    let code = &goaway.expect("no panic")[4..8];
    assert_eq!(code, ENHANCE_YOUR_CALM.to_be_bytes());
    get(&mut client, &reference().uid)
        .await
        .expect("it is served");
}
