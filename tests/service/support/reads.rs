//! Every kind of read, to find out which of them a fault reaches.

use std::time::Duration;

use futures_util::TryStreamExt;
use tonic::{Request, Status};
use voicecall::proto::{
    BatchGetVoiceCallsRequest, ExportVoiceCallsRequest, GetVoiceCallRequest,
    GetVoiceCallStatsRequest, ListVoiceCallChangesRequest, ListVoiceCallsRequest, VoiceCallFilter,
    VoiceCallStatsGroup, WatchVoiceCallsRequest, watch_voice_calls_response::Message,
};

use super::{
    Client,
    watcher::{from, snapshot},
};

/// A read, and its response as text.
pub(crate) type Answer = (&'static str, Result<String, Status>);

/// The default deadline of each read.
const DEADLINE: Duration = Duration::from_secs(20);

/// Every kind of read, all at once; `uid` is of a call that exists.
pub(crate) async fn every_read(client: &Client, uid: &str) -> Vec<Answer> {
    every_read_within(DEADLINE, client, uid, None).await
}

/// The same with this deadline for each; the export and the snapshot are of these calls, all
/// if there is no filter.
pub(crate) async fn every_read_within(
    time: Duration,
    client: &Client,
    uid: &str,
    all: Option<&VoiceCallFilter>,
) -> Vec<Answer> {
    let staff = VoiceCallFilter {
        staff_uids: vec!["staff".into(), "other".into()],
        ..Default::default()
    };
    let client = || Patient {
        client: client.clone(),
        time,
    };
    let answers = tokio::join!(
        get(client(), uid),
        batch_get(client(), uid),
        statistics(client()),
        changes(client(), None),
        changes(client(), Some(uid)),
        export(client(), all.cloned()),
        watch(client(), all.cloned()),
        list(client(), "", None),
        list(client(), "updated_at", None),
        list(client(), "", Some(staff)),
    );
    vec![
        ("get", answers.0),
        ("batch get", answers.1),
        ("statistics", answers.2),
        ("changes", answers.3),
        ("history", answers.4),
        ("export", answers.5),
        ("watch", answers.6),
        ("list", answers.7),
        ("list by update", answers.8),
        ("filtered list", answers.9),
    ]
}

/// Asserts that every read succeeded.
#[track_caller]
pub(crate) fn assert_answered(answers: &[Answer], when: &str) {
    for (kind, answer) in answers {
        assert!(answer.is_ok(), "{kind} {when}: {answer:?}");
    }
}

/// A client, and its deadline for each request.
struct Patient {
    client: Client,
    time: Duration,
}

impl Patient {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.time);
        request
    }
}

async fn get(mut patient: Patient, uid: &str) -> Result<String, Status> {
    let request = GetVoiceCallRequest {
        uid: uid.into(),
        ..Default::default()
    };
    let request = patient.request(request);
    let response = patient.client.get_voice_call(request).await?;
    Ok(format!("{:?}", response.into_inner()))
}

async fn batch_get(mut patient: Patient, uid: &str) -> Result<String, Status> {
    let request = BatchGetVoiceCallsRequest {
        uids: vec![uid.into()],
        ..Default::default()
    };
    let request = patient.request(request);
    let response = patient.client.batch_get_voice_calls(request).await?;
    Ok(format!("{:?}", response.into_inner()))
}

async fn statistics(mut patient: Patient) -> Result<String, Status> {
    let request = GetVoiceCallStatsRequest {
        group_by: vec![
            VoiceCallStatsGroup::Day.into(),
            VoiceCallStatsGroup::Staff.into(),
        ],
        time_zone: "Europe/Berlin".into(),
        ..Default::default()
    };
    let request = patient.request(request);
    let response = patient.client.get_voice_call_stats(request).await?;
    Ok(format!("{:?}", response.into_inner()))
}

async fn changes(mut patient: Patient, uid: Option<&str>) -> Result<String, Status> {
    let request = ListVoiceCallChangesRequest {
        filter: Some(VoiceCallFilter {
            uids: uid.into_iter().map(Into::into).collect(),
            show_deleted: true,
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = patient.request(request);
    let response = patient.client.list_voice_call_changes(request).await?;
    Ok(format!("{:?}", response.into_inner().events))
}

async fn list(
    mut patient: Patient,
    order_by: &str,
    filter: Option<VoiceCallFilter>,
) -> Result<String, Status> {
    let request = ListVoiceCallsRequest {
        filter,
        order_by: order_by.into(),
        ..Default::default()
    };
    let request = patient.request(request);
    let response = patient.client.list_voice_calls(request).await?;
    Ok(format!("{:?}", response.into_inner()))
}

async fn export(mut patient: Patient, filter: Option<VoiceCallFilter>) -> Result<String, Status> {
    let request = ExportVoiceCallsRequest {
        filter,
        ..Default::default()
    };
    let request = patient.request(request);
    let chunks = patient
        .client
        .export_voice_calls(request)
        .await?
        .into_inner();
    let chunks: Vec<_> = chunks.try_collect().await?;
    Ok(format!("{chunks:?}"))
}

/// The snapshot with which a watch begins.
async fn watch(mut patient: Patient, filter: Option<VoiceCallFilter>) -> Result<String, Status> {
    let request = WatchVoiceCallsRequest {
        filter,
        ..from(snapshot())
    };
    let request = patient.request(request);
    let mut stream = patient
        .client
        .watch_voice_calls(request)
        .await?
        .into_inner();
    let mut calls = Vec::new();
    while let Some(response) = stream.message().await? {
        match response.message {
            Some(Message::SnapshotChunk(chunk)) => calls.extend(chunk.voice_calls),
            _ => break,
        }
    }
    Ok(format!("{calls:?}"))
}
