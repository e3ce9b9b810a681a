//! An import, from its first message to its end.

use futures_util::stream;
use tonic::{Request, Status};
use voicecall::proto::{
    ImportConflictPolicy, ImportRecord, ImportSettings, ImportVoiceCallsRequest,
    ImportVoiceCallsResponse, VoiceCall, import_voice_calls_request::Message,
};

use super::{Client, with_token};

/// The first message.
pub(crate) fn settings(policy: ImportConflictPolicy) -> ImportVoiceCallsRequest {
    ImportVoiceCallsRequest {
        message: Some(Message::Settings(ImportSettings {
            conflict_policy: policy.into(),
        })),
    }
}

pub(crate) fn record(sequence: i64, voice_call: VoiceCall) -> ImportVoiceCallsRequest {
    ImportVoiceCallsRequest {
        message: Some(Message::Record(ImportRecord {
            sequence,
            voice_call: Some(voice_call),
        })),
    }
}

/// Sends these messages; returns the answers as they came, and how the stream ended.
pub(crate) async fn send(
    client: &mut Client,
    messages: Vec<ImportVoiceCallsRequest>,
) -> (Vec<ImportVoiceCallsResponse>, Result<(), Status>) {
    send_as(client, None, messages).await
}

/// The same with a bearer token, if any.
async fn send_as(
    client: &mut Client,
    token: Option<&str>,
    messages: Vec<ImportVoiceCallsRequest>,
) -> (Vec<ImportVoiceCallsResponse>, Result<(), Status>) {
    let mut answers = Vec::new();
    let messages = stream::iter(messages);
    let request = match token {
        Some(token) => with_token(messages, token),
        None => Request::new(messages),
    };
    let mut stream = match client.import_voice_calls(request).await {
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

/// Imports these calls, the first of which is number 0; returns the answers as they came,
/// and how the stream ended.
pub(crate) async fn import(
    client: &mut Client,
    policy: ImportConflictPolicy,
    calls: impl IntoIterator<Item = VoiceCall>,
) -> (Vec<ImportVoiceCallsResponse>, Result<(), Status>) {
    import_as(client, None, policy, calls).await
}

/// The same with a bearer token, if any.
pub(crate) async fn import_as(
    client: &mut Client,
    token: Option<&str>,
    policy: ImportConflictPolicy,
    calls: impl IntoIterator<Item = VoiceCall>,
) -> (Vec<ImportVoiceCallsResponse>, Result<(), Status>) {
    let records = (0..)
        .zip(calls)
        .map(|(sequence, call)| record(sequence, call));
    let messages = std::iter::once(settings(policy)).chain(records).collect();
    send_as(client, token, messages).await
}
