//! The watch that resumes by itself.

use std::collections::VecDeque;

use futures_util::{Stream, stream};
use tokio::time::sleep;
use tonic::{Code, Streaming};

use super::{Client, Error, retry};
use crate::proto::{
    Checkpoint, EventBatch, SnapshotComplete, VoiceCall, VoiceCallEvent, WatchVoiceCallsRequest,
    WatchVoiceCallsResponse, watch_voice_calls_request::Start, watch_voice_calls_response::Message,
};

/// What a watch gives. Each change comes once, in order, across all reconnects.
#[derive(Debug, Clone, PartialEq)]
pub enum Watched {
    /// A call of the snapshot. If the snapshot breaks off, it begins anew:
    /// [`Watched::Restarted`] says so.
    Call(Box<VoiceCall>),
    /// Forget the calls so far: the snapshot begins anew.
    Restarted,
    /// The snapshot is complete, at this revision.
    Complete {
        /// The revision.
        revision: i64,
        /// Resumes here.
        resume_token: String,
    },
    /// Something has changed.
    Event(Box<VoiceCallEvent>),
    /// Everything so far is delivered; store this beside what was made of it.
    Position {
        /// Resumes here, in another process too.
        resume_token: String,
        /// Everything in view up to this revision; `None` after events, whose own
        /// revisions tell.
        checkpoint: Option<Checkpoint>,
    },
}

struct Watch {
    client: Client,
    request: WatchVoiceCallsRequest,
    stream: Option<Streaming<WatchVoiceCallsResponse>>,
    /// Received, and not given yet.
    waiting: VecDeque<Watched>,
    /// Failures in a row.
    failures: u32,
    /// Calls of a snapshot that is not complete have been given.
    in_snapshot: bool,
    ended: bool,
}

impl Client {
    /// Watches, for as long as the stream is polled. A stream that breaks is
    /// resumed where it was, with backoff and jitter and without end; what cannot
    /// be resumed ([`Error::reason`] `REVISION_COMPACTED`, `FEED_RESET`,
    /// `WATCHER_TOO_SLOW`) and what is refused ends it with the error: start again
    /// with a snapshot.
    pub fn watch(
        &self,
        request: WatchVoiceCallsRequest,
    ) -> impl Stream<Item = Result<Watched, Error>> + use<> {
        let watch = Watch {
            client: self.clone(),
            request,
            stream: None,
            waiting: VecDeque::new(),
            failures: 0,
            in_snapshot: false,
            ended: false,
        };
        stream::unfold(watch, async |mut watch| {
            let item = watch.next().await?;
            watch.ended = item.is_err();
            Some((item, watch))
        })
    }
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Watched, Error>> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(watched) = self.waiting.pop_front() {
                return Some(Ok(watched));
            }
            let Err(error) = self.receive().await else {
                continue;
            };
            self.stream = None;
            self.failures += 1;
            let Some(wait) = retry::resume(&error, self.failures) else {
                return Some(Err(error));
            };
            sleep(wait).await;
        }
    }

    /// Receives one message, and connects before that if need be.
    async fn receive(&mut self) -> Result<(), Error> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = self.client.open_watch(self.request.clone()).await?;
                if std::mem::take(&mut self.in_snapshot) {
                    self.waiting.push_back(Watched::Restarted);
                }
                self.stream.insert(stream)
            }
        };
        let message = stream.message().await;
        let message = message.map_err(|status| self.client.error(&status))?;
        // A stream never ends without a status, except when the connection does.
        let message =
            message.ok_or_else(|| Error::new(Code::Unavailable, "the stream was interrupted"))?;
        self.failures = 0;
        match message.message {
            Some(Message::SnapshotChunk(chunk)) => {
                self.in_snapshot = true;
                let calls = chunk.voice_calls.into_iter();
                self.waiting
                    .extend(calls.map(|call| Watched::Call(Box::new(call))));
            }
            Some(Message::SnapshotComplete(SnapshotComplete {
                revision,
                resume_token,
            })) => {
                self.in_snapshot = false;
                self.resume_from(&resume_token);
                self.waiting.push_back(Watched::Complete {
                    revision,
                    resume_token,
                });
            }
            Some(Message::EventBatch(batch)) => self.events(batch),
            Some(Message::Checkpoint(checkpoint)) => {
                self.resume_from(&checkpoint.resume_token);
                self.waiting.push_back(Watched::Position {
                    resume_token: checkpoint.resume_token.clone(),
                    checkpoint: Some(checkpoint),
                });
            }
            // Of a newer service.
            None => {}
        }
        Ok(())
    }

    fn events(&mut self, batch: EventBatch) {
        self.resume_from(&batch.resume_token);
        let events = batch.events.into_iter();
        self.waiting
            .extend(events.map(|event| Watched::Event(Box::new(event))));
        self.waiting.push_back(Watched::Position {
            resume_token: batch.resume_token,
            checkpoint: None,
        });
    }

    fn resume_from(&mut self, token: &str) {
        self.request.start = Some(Start::ResumeToken(token.to_owned()));
    }
}
