//! Connections that never finish their handshake, or have nothing to do.

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{interval, timeout},
};
use tonic::Code;

use crate::support::{
    Server, get, reference,
    server::settings,
    wire_connection::{Frames, PREFACE, SETTINGS, closed, socket},
};

const HERE: &str = "127.0.0.1";
/// Much shorter than the drain timeout of these servers, and longer than anything takes.
const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn the_handshake_has_a_bound_as_a_whole() {
    let mut hurried = settings();
    hurried.connections.handshake_timeout = Duration::from_millis(300);
    let server = Server::start_with(hurried).await;
    let handshake = [PREFACE, &SETTINGS].concat();
    for len in [0, 1, PREFACE.len(), handshake.len() - 1] {
        let mut stream = socket(&server.endpoint, HERE).await;
        let begun = stream.write_all(&handshake[..len]).await;
        begun.expect("it is open");
        closed(&mut stream).await;
    }
    // Byte by byte: each comes long before the bound, and all together long after it.
    let (mut reader, mut writer) = socket(&server.endpoint, HERE).await.into_split();
    let drip = async {
        let mut pace = interval(Duration::from_millis(100));
        for byte in &handshake {
            pace.tick().await;
            if writer.write_all(&[*byte]).await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    let mut end = [0];
    tokio::select! {
        () = drip => panic!("the client has taken as long as it liked"),
        read = tokio::io::AsyncReadExt::read(&mut reader, &mut end) => {
            assert!(matches!(read, Ok(0) | Err(_)), "nothing is said to it");
        }
    }
    // A connection that is established may be silent.
    let mut silent = Frames::connect(&server.endpoint, HERE).await;
    assert!(silent.is_served().await);
}

/// Connections of one byte each.
async fn one_byte_each(server: &Server, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = socket(&server.endpoint, HERE).await;
        stream.write_all(b"P").await.expect("it is open");
        streams.push(stream);
    }
    streams
}

#[tokio::test]
async fn connections_without_a_handshake_take_nobodys_place() {
    let mut few = settings();
    few.connections.max = 64;
    few.connections.handshake_timeout = Duration::from_secs(3600);
    let server = Server::start_with(few).await;
    let mut before = Frames::connect(&server.endpoint, HERE).await;
    let silent = one_byte_each(&server, 200).await;
    let mut client = server.client();
    let read = timeout(SOON, get(&mut client, &reference().uid)).await;
    let status = read.expect("it is accepted").expect_err("there is none");
    assert_eq!(status.code(), Code::NotFound);
    assert!(before.is_served().await, "it has kept its place");
    drop(silent);
}

#[tokio::test]
async fn shutdown_does_not_wait_for_connections_without_requests() {
    let mut patient = settings();
    patient.drain_timeout = Duration::from_secs(3600);
    let server = Server::start_with(patient).await;
    let _silent = one_byte_each(&server, 2).await;
    let mut idle = Frames::connect(&server.endpoint, HERE).await;
    assert!(idle.is_served().await);
    // It does not even acknowledge that it is sent away.
    let _idle = idle.without_pings();
    timeout(SOON, server.stop()).await.expect("it ends");
}
