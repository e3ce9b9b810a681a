//! Random writes to random replicas.

use prost_types::FieldMask;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::Instant;
use tonic::Status;
use voicecall::{
    domain::Uuid,
    proto::{self, VoiceCall, VoiceCallStatus},
};

use super::{CALLS, CALLS_APART, Endpoints, any_endpoint, uid};
use crate::support::{Client, inbound, server::client, writes::batch_of};

/// The summary of a call that is written: long, so that a slow watcher's queue overflows.
const SUMMARY_LEN: usize = 1000;
const STAFF: u32 = 4;

fn any_client(endpoints: &Endpoints, random: &mut StdRng) -> Client {
    client(&any_endpoint(endpoints, random))
}

/// Creates all calls, those that are written among the others.
pub(super) async fn seed(client: &mut Client) {
    let calls: Vec<_> = (0..CALLS * CALLS_APART)
        .map(|number| VoiceCall {
            uid: Uuid::from_u128(number).to_string(),
            call_summary: number
                .is_multiple_of(CALLS_APART)
                .then(|| "x".repeat(SUMMARY_LEN)),
            ..inbound()
        })
        .collect();
    for calls in calls.chunks(500) {
        let created = batch_of(calls.to_vec()).send(client).await;
        created.expect("they are new");
    }
}

/// Sends random writes to random replicas until `end`. Refusals are expected.
pub(super) async fn write(seed: u64, endpoints: Endpoints, end: Instant) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut client = any_client(&endpoints, &mut random);
    while Instant::now() < end {
        if random.random_bool(0.02) {
            client = any_client(&endpoints, &mut random);
        }
        let failed = write_one(&mut client, &mut random)
            .await
            .is_err_and(|status| {
                matches!(
                    status.code(),
                    tonic::Code::Unavailable | tonic::Code::Unknown
                )
            });
        if failed {
            client = any_client(&endpoints, &mut random);
        }
    }
}

async fn write_one(client: &mut Client, random: &mut StdRng) -> Result<(), Status> {
    let statuses = [VoiceCallStatus::IncomingCall, VoiceCallStatus::Missed];
    let voice_call = VoiceCall {
        uid: uid(random.random_range(0..CALLS)),
        status: statuses[random.random_range(0..2)].into(),
        staff_uid: Some(format!("staff-{}", random.random_range(0..STAFF))),
        duration: Some(random.random_range(0..100)),
        ..inbound()
    };
    let uid = voice_call.uid.clone();
    match random.random_range(0..100) {
        0..60 => {
            let request = proto::UpdateVoiceCallRequest {
                voice_call: Some(voice_call),
                update_mask: Some(FieldMask {
                    paths: vec!["staff_uid".into(), "duration".into()],
                }),
                allow_missing: true,
                ..Default::default()
            };
            client.update_voice_call(request).await.map(drop)
        }
        60..70 => {
            let batch = vec![
                VoiceCall {
                    uid: String::new(),
                    ..voice_call
                };
                5
            ];
            let request = proto::BatchCreateVoiceCallsRequest {
                voice_calls: batch,
                ..Default::default()
            };
            client.batch_create_voice_calls(request).await.map(drop)
        }
        70..80 => {
            let request = proto::HandleVoiceCallRequest {
                uid,
                handled_by_staff_uid: "eve".into(),
                ..Default::default()
            };
            client.handle_voice_call(request).await.map(drop)
        }
        80..90 => {
            let request = proto::DeleteVoiceCallRequest {
                uid,
                ..Default::default()
            };
            client.delete_voice_call(request).await.map(drop)
        }
        90..99 => {
            let request = proto::UndeleteVoiceCallRequest {
                uid,
                ..Default::default()
            };
            client.undelete_voice_call(request).await.map(drop)
        }
        _ => {
            // So that its last change is still in memory.
            let update = proto::UpdateVoiceCallRequest {
                voice_call: Some(voice_call),
                ..Default::default()
            };
            client.update_voice_call(update).await?;
            let request = proto::PurgeVoiceCallRequest {
                uid,
                ..Default::default()
            };
            client.purge_voice_call(request).await.map(drop)
        }
    }
}
