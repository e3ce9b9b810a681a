//! Looks up a call of every page of the table before anything is measured, so that the service
//! is warm: the first read of a page is from the disk, and each database connection maps a page
//! into its memory at its first read.

use tokio::task::JoinSet;
use voicecall::proto::{
    BatchGetVoiceCallsRequest, voice_call_service_client::VoiceCallServiceClient,
};

use crate::{Result, calls, load::channel};

/// Connections; the server distributes them among its threads, which have separate database
/// connections.
const CONNECTIONS: usize = 4;
/// The distance between calls that are looked up: a page of the table has more calls.
const CALLS_APART: usize = 10;
/// The most calls that are looked up at once.
const BATCH: usize = 1000;

/// Looks up every tenth of the seeded calls, over each connection.
pub(crate) async fn look_up(endpoint: &str, calls: u64) -> Result<()> {
    let mut readers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut client = VoiceCallServiceClient::new(channel(endpoint).await?);
        readers.spawn(async move {
            let mut numbers = (1..=calls).step_by(CALLS_APART).peekable();
            while numbers.peek().is_some() {
                let uids = numbers.by_ref().take(BATCH).map(calls::uid).collect();
                let request = BatchGetVoiceCallsRequest {
                    uids,
                    min_revision: 0,
                };
                client.batch_get_voice_calls(request).await?;
            }
            Ok::<_, tonic::Status>(())
        });
    }
    while let Some(reader) = readers.join_next().await {
        reader??;
    }
    Ok(())
}
