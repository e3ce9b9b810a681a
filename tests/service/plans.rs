//! What a commit reads of tables that have grown since it was planned.

use voicecall::proto::{CreateVoiceCallRequest, UpdateVoiceCallRequest, VoiceCall};

use crate::support::{Server, eventually, postgres::connect, reference, request_id};

const CALLS: i64 = 150;

/// Entries of the indexes that a commit looks into: how often, and how many it read.
const READS: &str = "SELECT coalesce(sum(idx_scan), 0)::bigint, \
    coalesce(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes \
    WHERE indexrelname = 'voice_calls_pkey' OR indexrelname LIKE 'idempotency_records_slot_%'";

#[tokio::test]
async fn a_commit_reads_only_what_it_names_however_small_the_tables_were_when_it_was_planned() {
    let server = Server::start().await;
    let database = connect(&server.database_url).await;
    let mut client = server.client();
    let create = || CreateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            uid: String::new(),
            ..reference()
        }),
        request_id: request_id(),
        ..Default::default()
    };
    for duration in 0..CALLS {
        let created = client.create_voice_call(create()).await.expect("created");
        let call = created.into_inner().voice_call.expect("answered");
        let update = UpdateVoiceCallRequest {
            voice_call: Some(VoiceCall {
                uid: call.uid,
                duration: i32::try_from(duration).ok(),
                ..Default::default()
            }),
            request_id: request_id(),
            ..Default::default()
        };
        client.update_voice_call(update).await.expect("updated");
    }
    let mut read = 0;
    eventually("all of it is counted", async || {
        // A backend counts when it has something to do.
        client.create_voice_call(create()).await.expect("created");
        let row = database.query_one(READS, &[]).await.expect("it answers");
        read = row.get(1);
        row.get::<_, i64>(0) > 4 * CALLS
    })
    .await;
    // All that there was, each time, would be half of the square of what was written.
    assert!(read < 20 * CALLS, "{read} entries for {CALLS} calls");
}
