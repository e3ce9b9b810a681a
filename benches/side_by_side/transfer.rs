//! The driver of imports and exports: a separate process that sends or decodes every call, or
//! reads slowly.

use std::time::Duration;

use futures_util::stream;
use tokio::time::{Instant, sleep};
use tonic::Streaming;

use crate::load::Channel;
use uuid::Uuid;
use voicecall::proto::{
    self, ImportVoiceCallsRequest, VoiceCall, import_voice_calls_request::Message as ImportMessage,
    import_voice_calls_response::Result as Imported,
    voice_call_service_client::VoiceCallServiceClient as VoiceCalls, watch_voice_calls_request,
};

use crate::{
    Result, calls,
    load::channel,
    sample::{Metric, Sample},
};

/// The options of the transfer driver.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Transfer {
    /// The kind of transfer.
    #[arg(long)]
    pub(crate) what: What,
    /// Where the server listens.
    #[arg(long)]
    pub(crate) endpoint: String,
    /// Calls to import.
    #[arg(long, default_value_t = 0)]
    pub(crate) calls: u64,
}

/// The kind of transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum What {
    /// Import new calls.
    Import,
    /// Export all calls.
    Export,
    /// Export one chunk per second, until standard input ends.
    SlowExport,
    /// Watch from a snapshot that is read at one chunk per second, until standard input ends.
    SlowSnapshot,
}

/// Seconds between two imported calls.
const APART: u64 = 3;
const FIRST_SECOND: i64 = 1_500_000_000;

/// Runs the transfer, and returns its rate.
pub(crate) async fn transfer(options: &Transfer) -> Result<Sample> {
    let channel = channel(&options.endpoint).await?;
    let mut client = VoiceCalls::new(channel).max_decoding_message_size(4 * 1024 * 1024);
    let started = Instant::now();
    let count = match options.what {
        What::Import => import(&mut client, options.calls).await?,
        What::Export => export(&mut client).await?,
        What::SlowExport => {
            let request = proto::ExportVoiceCallsRequest::default();
            let chunks = client.export_voice_calls(request).await?.into_inner();
            return slowly(chunks).await;
        }
        What::SlowSnapshot => {
            let start = watch_voice_calls_request::Start::Snapshot(proto::Snapshot {});
            let request = proto::WatchVoiceCallsRequest {
                start: Some(start),
                ..Default::default()
            };
            let messages = client.watch_voice_calls(request).await?.into_inner();
            return slowly(messages).await;
        }
    };
    let rate = count as f64 / started.elapsed().as_secs_f64();
    Ok(Sample::of(Metric::Rate, rate))
}

/// Reads one message per second until standard input ends.
async fn slowly<T>(mut messages: Streaming<T>) -> Result<Sample> {
    messages.message().await?.ok_or("nothing came")?;
    println!("watching");
    let end = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
    let read = async {
        loop {
            sleep(Duration::from_secs(1)).await;
            messages.message().await?.ok_or("it ended")?;
        }
    };
    tokio::select! {
        end = end => end?.map(drop)?,
        read = read => {
            let read: Result<()> = read;
            read?;
        }
    }
    Ok(Sample::default())
}

async fn import(client: &mut VoiceCalls<Channel>, count: u64) -> Result<u64> {
    let settings = ImportMessage::Settings(proto::ImportSettings::default());
    let records = (0..count).map(|n| {
        ImportMessage::Record(proto::ImportRecord {
            sequence: n as i64,
            voice_call: Some(record(n)),
        })
    });
    let messages =
        std::iter::once(settings)
            .chain(records)
            .map(|message| ImportVoiceCallsRequest {
                message: Some(message),
            });
    let answers = client.import_voice_calls(stream::iter(messages)).await?;
    let mut answers = answers.into_inner();
    let mut imported = 0;
    while let Some(answer) = answers.message().await? {
        match answer.result {
            Some(Imported::Success(_)) => imported += 1,
            other => return Err(format!("refused: {other:?}").into()),
        }
    }
    (imported == count)
        .then_some(count)
        .ok_or_else(|| "not every record was answered".into())
}

/// A call like the seeded ones, with the times and the uid of another system.
fn record(n: u64) -> VoiceCall {
    let at = Some(prost_types::Timestamp {
        seconds: FIRST_SECOND + (n * APART) as i64,
        nanos: 0,
    });
    VoiceCall {
        uid: Uuid::new_v4().to_string(),
        created_at: at,
        updated_at: at,
        ..calls::new()
    }
}

async fn export(client: &mut VoiceCalls<Channel>) -> Result<u64> {
    let request = proto::ExportVoiceCallsRequest::default();
    let mut chunks = client.export_voice_calls(request).await?.into_inner();
    let mut count = 0;
    while let Some(chunk) = chunks.message().await? {
        count += chunk.voice_calls.len() as u64;
    }
    Ok(count)
}
