//! A call may be created at most five minutes ahead by the database's clock, whatever the
//! clock of the replica says.

use prost_types::Timestamp;
use tonic::Code;
use voicecall::proto::{CreateVoiceCallRequest, UpdateVoiceCallRequest, VoiceCall};

use super::{MINUTE, NEAR, start, true_time};
use crate::support::{
    assert_refused, clock::Clock, inbound, micros, postgres::Cluster, request_id, server::Client,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_clock_is_slow_takes_calls_of_now() {
    expect_the_databases_five_minutes(-10 * MINUTE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_clock_is_fast_takes_no_calls_of_later() {
    expect_the_databases_five_minutes(10 * MINUTE).await;
}

async fn expect_the_databases_five_minutes(replica_ahead: i64) {
    let Some(clock) = Clock::new() else {
        return;
    };
    clock.set(replica_ahead);
    let mut environment = clock.for_service();
    let url = Cluster::shared().await.database().await;
    environment.push(("DATABASE_URL", url));
    let service = start(&environment);
    let mut client = service.client();
    for minutes in [-60, 0, 4] {
        let time = from_now(minutes);
        for created in both_ways(&mut client, time).await {
            let created = created.expect("it is at most five minutes ahead");
            assert_eq!(created.created_at, Some(time));
            let off = micros(created.updated_at) - true_time();
            assert!(off.abs() < NEAR, "{off} microseconds off");
        }
    }
    for created in both_ways(&mut client, from_now(6)).await {
        let paths = ["voice_call.created_at"];
        assert_refused(created, Code::InvalidArgument, "INVALID_FIELD", &paths);
    }
}

/// Creates a call of this time, and another by an update of one that is missing.
async fn both_ways(client: &mut Client, time: Timestamp) -> [Result<VoiceCall, tonic::Status>; 2] {
    let call = || VoiceCall {
        uid: request_id(),
        created_at: Some(time),
        ..inbound()
    };
    let create = CreateVoiceCallRequest {
        voice_call: Some(call()),
        request_id: request_id(),
        ..Default::default()
    };
    let create = client.create_voice_call(create).await;
    let update = UpdateVoiceCallRequest {
        voice_call: Some(call()),
        allow_missing: true,
        ..Default::default()
    };
    let update = client.update_voice_call(update).await;
    let created = create.map(|response| response.into_inner().voice_call.expect("answered"));
    let updated = update.map(|response| response.into_inner().voice_call.expect("answered"));
    [created, updated]
}

/// So many minutes from the true time.
fn from_now(minutes: i64) -> Timestamp {
    Timestamp {
        seconds: true_time() / 1_000_000 + minutes * MINUTE,
        nanos: 0,
    }
}
