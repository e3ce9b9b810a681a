//! Health checks and reflection have no places, because they must work under load: they have
//! bounds of their own.

use std::time::Duration;

use futures_util::future::join_all;
use http::Response;
use tokio::time::timeout;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use voicecall::proto::SERVICE_NAME;

use super::stalled::{Connection, message, never};
use crate::support::{
    Server, assert_refused, eventually_within, retry_after,
    server::{SERVING, health},
};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// Longer than the bounds, which are tens of seconds.
const PATIENCE: Duration = Duration::from_secs(90);
/// Health checks and reflection streams of one connection.
const SHARE: usize = 64;

#[tokio::test]
async fn their_requests_are_small() {
    let server = Server::start().await;
    let mut client = HealthClient::new(server.channel());
    let request = |len| HealthCheckRequest {
        service: "a".repeat(len),
    };
    let unknown = client.check(request(4000)).await;
    assert_eq!(unknown.expect_err("unknown").code(), Code::NotFound);
    let too_large = client.check(request(5000)).await;
    let reason = "MESSAGE_TOO_LARGE";
    assert_refused(too_large, Code::ResourceExhausted, reason, &[]);
    let request = ServerReflectionRequest {
        host: "a".repeat(5000),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(server.channel());
    let requests = futures_util::stream::iter([request]);
    let stream = client.server_reflection_info(requests).await;
    let mut stream = stream.expect("it begins").into_inner();
    let too_large = stream.message().await;
    assert_refused(too_large, Code::ResourceExhausted, reason, &[]);
}

#[tokio::test]
async fn a_connection_has_a_share_of_them_and_others_have_theirs() {
    let server = Server::start().await;
    let mut client = HealthClient::new(server.channel());
    let mut open = Vec::new();
    for _ in 0..SHARE {
        let watch = client.watch(HealthCheckRequest::default()).await;
        open.push(watch.expect("it is within the share"));
    }
    let status = client.check(HealthCheckRequest::default()).await;
    let status = status.expect_err("it is not");
    assert!(retry_after(&status).is_some());
    assert_refused::<()>(Err(status), Code::ResourceExhausted, "OVERLOADED", &[]);
    assert_eq!(health(server.channel(), "").await, SERVING);
}

#[tokio::test]
async fn what_does_not_arrive_and_what_is_not_read_ends() {
    let server = Server::start().await;
    let mut connection = Connection::open_with(&server.endpoint, 32).await;
    let check = connection.send(CHECK, never());
    let silent = connection.send(REFLECTION, never()).await;
    let file = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(
            SERVICE_NAME.to_owned(),
        )),
    };
    let mut unread = Vec::new();
    // These are the share.
    for _ in 2..SHARE {
        unread.push(connection.send(REFLECTION, message(&file)).await);
    }
    let refused = connection.send(CHECK, message(&HealthCheckRequest::default()));
    assert_eq!(refused.await.headers()["grpc-status"], "8");
    let stalled = timeout(PATIENCE, check).await.expect("it is given up");
    assert_eq!(stalled.headers()["grpc-status"], "8");
    // All others end too: there is room for a whole share again.
    eventually_within(PATIENCE, "they end", async || {
        let mut watches = Vec::new();
        for _ in 0..SHARE {
            watches.push(connection.send(WATCH, message(&HealthCheckRequest::default())));
        }
        let watches = join_all(watches).await;
        let is_refused = |watch: &Response<_>| watch.headers().contains_key("grpc-status");
        !watches.iter().any(is_refused)
    })
    .await;
    drop((silent, unread));
}
