//! What the API responds while the server drains, without a database.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::{Service, ServiceExt};

use super::*;
use crate::{
    auth, feed,
    store::{self, Connector, PLANNED_ONCE_FROM, ReadLimits, Retention, Supervisor},
};

/// The API over a database that cannot be reached.
fn api_without_database(draining: &CancellationToken) -> Api {
    let connector = Connector::new("host=/nowhere user=nobody").expect("valid");
    let supervisor = Supervisor::default();
    let limits = store::Limits {
        write_queue: 1,
        reads: ReadLimits {
            lookup_queue: 1,
            list_connections: 1,
            statistics_connections: 1,
            planned_once_from: PLANNED_ONCE_FROM,
        },
        retention: Retention {
            keep: Duration::from_secs(3600),
            partition_len: 1000,
        },
    };
    let (store, following, _tasks) =
        Store::new(connector, limits, &[Handle::current()], &supervisor);
    let limits = feed::Limits {
        memory_bytes: 1024,
        max_snapshots: 1,
    };
    let (tasks, stop) = (TaskTracker::new(), draining.clone());
    let feed = Feed::start(store.clone(), following, limits, &tasks, stop, &supervisor);
    let limits = Limits {
        max_request_bytes: 1024,
        compress_responses: false,
        max_concurrent_requests: 16,
        max_watches: 1,
        max_transfers: 1,
        principal: auth::Limits::default(),
    };
    let api = api(store, feed, limits, Access::default(), draining.clone());
    api.expect("it is built").0
}

#[tokio::test]
async fn a_server_that_drains_sends_clients_elsewhere() {
    let draining = CancellationToken::new();
    let mut api = api_without_database(&draining);
    let mut look_up = async || {
        let request = http::Request::post("/voicecall.v1.VoiceCallService/GetVoiceCall")
            .header("content-type", "application/grpc")
            .body(Body::empty())
            .expect("valid");
        let response = api.ready().await.expect("ready").call(request).await;
        let response = response.expect("a response");
        Status::from_header_map(response.headers()).expect("a status")
    };
    assert_eq!(look_up().await.code(), Code::InvalidArgument);
    draining.cancel();
    let status = look_up().await;
    assert_eq!(status.code(), Code::Unavailable);
    let details = status.get_error_details();
    assert_eq!(details.error_info().expect("it has one").reason, "DRAINING");
    assert!(details.retry_info().is_some());
}
