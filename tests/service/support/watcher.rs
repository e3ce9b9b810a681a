//! A watching client that records what it receives.

use std::time::Duration;

use tokio::time::timeout;
use tonic::{IntoRequest, Status, Streaming};
use voicecall::proto::{
    self, Checkpoint, EventBatch, Live, Snapshot, VoiceCall, VoiceCallEvent, VoiceCallEventType,
    VoiceCallFilter, WatchVoiceCallsRequest, WatchVoiceCallsResponse,
    watch_voice_calls_request::Start, watch_voice_calls_response::Message,
};

use super::Client;

/// Longer than anything takes in a working service.
const PATIENCE: Duration = Duration::from_secs(20);

/// A watch from this start.
pub(crate) fn from(start: Start) -> WatchVoiceCallsRequest {
    WatchVoiceCallsRequest {
        start: Some(start),
        checkpoint_interval: Some(prost_types::Duration {
            seconds: 0,
            nanos: 100_000_000,
        }),
        ..Default::default()
    }
}

pub(crate) fn snapshot() -> Start {
    Start::Snapshot(Snapshot {})
}

pub(crate) fn live() -> Start {
    Start::Live(Live {})
}

/// One stream.
pub(crate) struct Watcher {
    stream: Streaming<WatchVoiceCallsResponse>,
    /// The last token that was received.
    pub(crate) token: String,
}

impl Watcher {
    pub(crate) async fn start(
        client: &mut Client,
        request: impl IntoRequest<WatchVoiceCallsRequest>,
    ) -> Result<Self, Status> {
        let stream = client.watch_voice_calls(request).await?.into_inner();
        Ok(Self {
            stream,
            token: String::new(),
        })
    }

    /// The same with a filter.
    pub(crate) async fn with_filter(
        client: &mut Client,
        start: Start,
        filter: VoiceCallFilter,
    ) -> Self {
        let request = WatchVoiceCallsRequest {
            filter: Some(filter),
            ..from(start)
        };
        Self::start(client, request).await.expect("it starts")
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<Message, Status> {
        let next = timeout(PATIENCE, self.stream.message()).await;
        let response = next
            .expect("messages come on time")?
            .expect("streams end with a status");
        let message = response.message.expect("always set");
        match &message {
            Message::EventBatch(EventBatch { resume_token, .. })
            | Message::SnapshotComplete(proto::SnapshotComplete { resume_token, .. })
            | Message::Checkpoint(Checkpoint { resume_token, .. }) => {
                assert!(!resume_token.is_empty());
                self.token.clone_from(resume_token);
            }
            Message::SnapshotChunk(_) => {}
        }
        Ok(message)
    }

    /// The next checkpoint, and the events before it.
    pub(crate) async fn checkpoint(&mut self) -> (Checkpoint, Vec<VoiceCallEvent>) {
        let mut events = Vec::new();
        loop {
            match self.next().await.expect("it goes on") {
                Message::Checkpoint(checkpoint) => return (checkpoint, events),
                Message::EventBatch(batch) => events.extend(batch.events),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Events up to the first checkpoint at or past this revision.
    pub(crate) async fn until(&mut self, revision: i64) -> Vec<VoiceCallEvent> {
        let mut all = Vec::new();
        let reach = async {
            loop {
                let (checkpoint, events) = self.checkpoint().await;
                all.extend(events);
                if checkpoint.revision >= revision {
                    return;
                }
            }
        };
        let reached = timeout(PATIENCE, reach).await;
        reached.expect("the stream comes so far");
        all
    }

    /// The calls of the snapshot, and its revision.
    pub(crate) async fn snapshot(&mut self) -> (Vec<VoiceCall>, i64) {
        let mut calls = Vec::new();
        loop {
            match self.next().await.expect("it goes on") {
                Message::SnapshotChunk(chunk) => calls.extend(chunk.voice_calls),
                Message::SnapshotComplete(complete) => return (calls, complete.revision),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The status that ends the stream.
    pub(crate) async fn end(&mut self) -> Status {
        let end = async {
            loop {
                if let Err(status) = self.next().await {
                    return status;
                }
            }
        };
        timeout(PATIENCE, end).await.expect("the stream ends")
    }
}

/// Types and revisions, which is what most tests compare.
pub(crate) fn outline(events: &[VoiceCallEvent]) -> Vec<(VoiceCallEventType, i64)> {
    events
        .iter()
        .map(|event| (event.r#type(), change(event).revision))
        .collect()
}

pub(crate) fn change(event: &VoiceCallEvent) -> &proto::VoiceCallChange {
    event.change.as_ref().expect("always set")
}
