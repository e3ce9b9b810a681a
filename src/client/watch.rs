//! Watches that resume by themselves after an interruption.

use std::collections::VecDeque;

use futures_util::{Stream, stream};
use tokio::time::{Instant, sleep};
use tonic::{Code, Streaming};

use super::{Client, Error, retry, token::StreamToken};
use crate::proto::{
    Checkpoint, EventBatch, SnapshotComplete, VoiceCall, VoiceCallEvent, WatchVoiceCallsRequest,
    WatchVoiceCallsResponse, watch_voice_calls_request::Start, watch_voice_calls_response::Message,
};

/// An item of a watch. Each change comes once and in order, across all interruptions.
#[derive(Debug, Clone, PartialEq)]
pub enum Watched {
    /// A call of the snapshot. If the snapshot is interrupted, it starts again, after a
    /// [`Watched::Restarted`].
    Call(Box<VoiceCall>),
    /// The snapshot starts again: discard the calls so far.
    Restarted,
    /// The snapshot is complete, at this revision.
    Complete {
        /// The revision of the snapshot.
        revision: i64,
        /// Resumes after the snapshot.
        resume_token: String,
    },
    /// A change.
    Event(Box<VoiceCallEvent>),
    /// Everything up to here has been delivered. Store the token together with what was
    /// derived from the events.
    Position {
        /// Resumes here, also in another process.
        resume_token: String,
        /// The checkpoint; `None` after events, which have their own revisions.
        checkpoint: Option<Checkpoint>,
    },
}

struct Watch {
    client: Client,
    request: WatchVoiceCallsRequest,
    stream: Option<Streaming<WatchVoiceCallsResponse>>,
    token: StreamToken,
    /// Items that have been received, and not returned yet.
    waiting: VecDeque<Watched>,
    /// Failures in a row.
    failures: u32,
    /// Calls of an incomplete snapshot have been returned.
    in_snapshot: bool,
    ended: bool,
}

impl Client {
    /// Watches calls, for as long as the stream is polled. After an interruption it resumes where
    /// it was, with backoff and jitter, however often that takes. When its token expires, it
    /// resumes with a new one; if reading the token again returns no new one for a second or two,
    /// it ends with the error. A watch that is refused ends with the error too, and so does one
    /// that cannot be resumed ([`Error::reason`] is `REVISION_COMPACTED`, `FEED_RESET` or
    /// `WATCHER_TOO_SLOW`): start again with a snapshot.
    pub fn watch(
        &self,
        request: WatchVoiceCallsRequest,
    ) -> impl Stream<Item = Result<Watched, Error>> + use<> {
        let watch = Watch {
            client: self.clone(),
            request,
            stream: None,
            token: StreamToken::default(),
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
            let delay = match retry::resume_delay(&error, self.failures) {
                Some(delay) => Ok(delay),
                None => self.token.reopen_delay(&self.client, error).await,
            };
            match delay {
                Ok(delay) => sleep(delay).await,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Receives one message, after opening the stream if it is not open.
    async fn receive(&mut self) -> Result<(), Error> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let deadline = Instant::now() + self.client.deadline;
                self.token.bearer = self.client.token(deadline).await?;
                let bearer = self.token.bearer.as_ref();
                let stream = self.client.open_watch(self.request.clone(), bearer).await?;
                if std::mem::take(&mut self.in_snapshot) {
                    self.waiting.push_back(Watched::Restarted);
                }
                self.stream.insert(stream)
            }
        };
        let message = stream.message().await;
        let message = message.map_err(|status| self.client.error(&status))?;
        // The service ends every stream with a status, so the connection was lost.
        let message =
            message.ok_or_else(|| Error::new(Code::Unavailable, "the stream was interrupted"))?;
        self.failures = 0;
        self.token.accepted();
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
            // A message that only newer releases know.
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
