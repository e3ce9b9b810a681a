//! Connections that their clients would keep for ever.

use std::{error::Error as _, time::Duration};

use prost::Message as _;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use voicecall::proto::{GetVoiceCallRequest, VoiceCall, watch_voice_calls_response::Message};

use super::full_table::assert_ended_in_order;
use crate::support::{
    Server, assert_refused, create, eventually, get, inbound,
    postgres::{connect, running},
    reference, retry_after,
    server::{SERVING, settings},
    watcher::{Watcher, from, live},
    wire_connection::{Frame, Frames, GOAWAY},
};

const HERE: &str = "127.0.0.1";
const SERVICE: &str = "/voicecall.v1.VoiceCallService";
const LOCK: &str = "BEGIN; LOCK TABLE voice_calls IN ACCESS EXCLUSIVE MODE";
const SOON: Duration = Duration::from_secs(15);

/// A server whose connections are soon old.
async fn server_with(age: Duration, grace: Duration) -> Server {
    let mut settings = settings();
    settings.connections.max_age = Some(age);
    settings.connections.grace = grace;
    Server::start_with(settings).await
}

/// All streams have ended when GOAWAY is sent, and HTTP/2 holds what the client has yet to read,
/// which is more than the socket takes.
#[tokio::test]
async fn an_old_connection_delivers_its_responses_over_a_slow_link() {
    const RESPONSES: usize = 500;
    const BYTES_A_SECOND: usize = 1_000_000;
    let server = server_with(Duration::from_secs(2), Duration::from_secs(60)).await;
    let mut client = server.client();
    let call = VoiceCall {
        call_summary: Some("x".repeat(15_000)),
        ..inbound()
    };
    let call = create(&mut client, call).await;
    let get = GetVoiceCallRequest {
        uid: call.uid,
        ..Default::default()
    };
    let get = get.encode_to_vec();
    let path = format!("{SERVICE}/GetVoiceCall");
    let mut connection = Frames::connect_slowly(&server.endpoint).await;
    for _ in 0..RESPONSES {
        connection.request(&path, &get).await;
    }
    let (mut ended, mut is_told) = (0, false);
    let mut due = Instant::now();
    while let Some(frame) = connection.next().await {
        ended += usize::from(frame.ends_stream());
        is_told |= frame.kind == GOAWAY;
        // This is the link.
        due += Duration::from_secs(1) * u32::try_from(frame.payload.len()).expect("small")
            / u32::try_from(BYTES_A_SECOND).expect("small");
        sleep_until(due).await;
    }
    assert!(is_told);
    assert_eq!(ended, RESPONSES);
}

#[tokio::test]
async fn an_old_connection_ends_its_streams_first_and_then_its_requests() {
    let server = server_with(Duration::from_secs(3), Duration::from_secs(3600)).await;
    create(&mut server.client(), reference()).await;
    let blocker = connect(&server.database_url).await;
    let look = connect(&server.database_url).await;
    let mut connection = Frames::connect(&server.endpoint, HERE).await;
    let watch = from(live()).encode_to_vec();
    let path = format!("{SERVICE}/WatchVoiceCalls");
    connection.request(&path, &watch).await;
    let answered = connection.next().await;
    assert!(answered.is_some());
    blocker.batch_execute(LOCK).await.expect("it is locked");
    let path = format!("{SERVICE}/ListVoiceCalls");
    let list = connection.request(&path, &[]).await;
    eventually("the list waits", async || {
        running(&look, "voicecall lists", true).await == 1
    })
    .await;
    let mut frames = Vec::new();
    while frames.iter().all(|frame: &Frame| frame.kind != GOAWAY) {
        frames.push(connection.next().await.expect("GOAWAY comes first"));
    }
    assert_ended_in_order(&frames);
    // The request in progress is answered, and nothing keeps the connection after that.
    blocker.batch_execute("COMMIT").await.expect("it is free");
    let rest = connection.rest().await;
    let answered = rest
        .iter()
        .any(|frame| frame.stream == list && frame.ends_stream());
    assert!(answered, "{rest:?}");
}

#[tokio::test]
async fn a_watch_on_an_old_connection_ends_with_a_checkpoint_and_says_why() {
    let server = server_with(Duration::from_secs(1), Duration::from_secs(3600)).await;
    let mut client = server.client();
    let watcher = Watcher::start(&mut client, from(live())).await;
    let mut watcher = watcher.expect("it starts");
    let mut last = None;
    let end = timeout(SOON, async {
        loop {
            match watcher.next().await {
                Ok(message) => last = Some(message),
                Err(status) => return status,
            }
        }
    });
    let status = end.await.expect("it ends");
    assert!(matches!(last, Some(Message::Checkpoint(_))), "{last:?}");
    assert!(retry_after(&status).is_some());
    assert_refused(Err::<(), _>(status), Code::Unavailable, "DRAINING", &[]);
    // The same client connects anew.
    let watcher = Watcher::start(&mut client, from(live())).await;
    watcher.expect("it starts").checkpoint().await;
}

#[tokio::test]
async fn a_request_that_does_not_end_keeps_no_old_connection() {
    let server = server_with(Duration::from_millis(100), Duration::from_millis(100)).await;
    create(&mut server.client(), reference()).await;
    let blocker = connect(&server.database_url).await;
    blocker.batch_execute(LOCK).await.expect("it is locked");
    let mut connection = Frames::connect(&server.endpoint, HERE).await;
    connection
        .request(&format!("{SERVICE}/ListVoiceCalls"), &[])
        .await;
    timeout(SOON, connection.rest())
        .await
        .expect("it is closed");
    blocker.batch_execute("COMMIT").await.expect("it is free");
}

#[tokio::test]
async fn the_age_of_connections_costs_no_request() {
    let server = server_with(Duration::from_millis(200), Duration::from_secs(3600)).await;
    let call = create(&mut server.client(), reference()).await;
    // It connects anew about ten times.
    let mut client = server.client();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        if let Err(status) = get(&mut client, &call.uid).await {
            assert!(was_not_sent(&status), "{status:?}");
        }
    }
}

/// Whether the client's library gave up the request before it was sent: it had given it to a
/// connection that was closing.
fn was_not_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            return error.is_canceled();
        }
        source = error.source();
    }
    false
}

#[tokio::test]
async fn a_health_watch_ends_with_its_connection() {
    let server = server_with(Duration::from_secs(1), Duration::from_secs(3600)).await;
    let mut client = HealthClient::new(server.channel());
    let watch = client.watch(HealthCheckRequest::default()).await;
    let mut watch = watch.expect("it starts").into_inner();
    let first = watch
        .message()
        .await
        .expect("it goes on")
        .expect("a status");
    assert_eq!(first.status, SERVING);
    let end = timeout(SOON, async {
        loop {
            if let Err(status) = watch.message().await {
                return status;
            }
        }
    });
    let status = end.await.expect("it ends");
    assert_refused(Err::<(), _>(status), Code::Unavailable, "DRAINING", &[]);
}

#[tokio::test]
async fn a_health_watch_does_not_delay_shutdown() {
    let mut patient = settings();
    patient.drain_timeout = Duration::from_secs(3600);
    let server = Server::start_with(patient).await;
    let mut client = HealthClient::new(server.channel());
    let watch = client.watch(HealthCheckRequest::default()).await;
    let mut watch = watch.expect("it starts").into_inner();
    watch
        .message()
        .await
        .expect("it goes on")
        .expect("a status");
    timeout(SOON, server.stop()).await.expect("it ends");
}
