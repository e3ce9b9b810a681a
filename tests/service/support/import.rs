//! An import, from its first message to its end.

use futures_util::stream;
use tonic::Status;
use voicecall::proto::{
    ImportConflictPolicy, ImportRecord, ImportSettings, ImportVoiceCallsRequest,
    ImportVoiceCallsResponse, VoiceCall, import_voice_calls_request::Message,
};

use super::Client;

/// Imports these calls, the first of which is number 0; returns the answers as they came,
/// and how the stream ended.
pub(crate) async fn import(
    client: &mut Client,
    policy: ImportConflictPolicy,
    calls: impl IntoIterator<Item = VoiceCall>,
) -> (Vec<ImportVoiceCallsResponse>, Result<(), Status>) {
    let settings = Message::Settings(ImportSettings {
        conflict_policy: policy.into(),
    });
    let records = (0..).zip(calls).map(|(sequence, call)| {
        Message::Record(ImportRecord {
            sequence,
            voice_call: Some(call),
        })
    });
    let messages: Vec<_> = std::iter::once(settings)
        .chain(records)
        .map(|message| ImportVoiceCallsRequest {
            message: Some(message),
        })
        .collect();
    let mut answers = Vec::new();
    let mut stream = match client.import_voice_calls(stream::iter(messages)).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return (answers, Err(status)),
    };
    loop {
        match stream.message().await {
            Ok(Some(answer)) => answers.push(answer),
            Ok(None) => return (answers, Ok(())),
            Err(status) => return (answers, Err(status)),
        }
    }
}
