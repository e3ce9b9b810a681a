//! Imports that continue by themselves after an interruption.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tonic::{Code, Status, Streaming};

use super::{Client, Error, retry, token::StreamToken, window::Window};
use crate::proto::{
    ImportRecord, ImportSettings, ImportVoiceCallsRequest, ImportVoiceCallsResponse,
    import_voice_calls_request::Message,
};

/// The most records on their way to the connection.
const OUT_QUEUE: usize = 64;

impl Client {
    /// Imports records, and returns one response to each, with the sequence of the record. It
    /// sends records as fast as the service accepts them, for as long as the responses are
    /// read; at most 4096 records, or 16 MiB, wait for their response.
    ///
    /// After an interruption the stream is opened again, and everything from the first record
    /// without a response on is sent again, in order, so that the calls end up the same under any
    /// conflict policy. It continues with a new token when its own expires. There is still one
    /// response to each record, but if the first one was lost, the second may be UNCHANGED or
    /// SKIPPED. The stream ends with an error when it is refused, or when records have waited for a
    /// response longer than the deadline.
    pub fn import<S>(
        &self,
        settings: ImportSettings,
        records: S,
    ) -> impl Stream<Item = Result<ImportVoiceCallsResponse, Error>> + use<S>
    where
        S: Stream<Item = ImportRecord>,
    {
        let import = Import {
            client: self.clone(),
            settings,
            records: Box::pin(records),
            is_read: false,
            window: Window::default(),
            connection: None,
            token: StreamToken::default(),
            failures: 0,
            give_up_at: Instant::now(),
            ended: false,
        };
        stream::unfold(import, async |mut import| {
            let item = import.next().await?;
            import.ended = item.is_err();
            Some((item, import))
        })
    }
}

struct Import<S> {
    client: Client,
    settings: ImportSettings,
    records: Pin<Box<S>>,
    /// All records have been read into the window.
    is_read: bool,
    window: Window,
    connection: Option<Connection>,
    token: StreamToken,
    /// Failures since the last response.
    failures: u32,
    /// When the import fails, unless there is a response before, or none is outstanding.
    give_up_at: Instant,
    ended: bool,
}

struct Connection {
    /// `None` once all records are sent.
    out: Option<mpsc::Sender<ImportVoiceCallsRequest>>,
    responses: Streaming<ImportVoiceCallsResponse>,
}

/// The next event of the stream.
#[expect(
    clippy::large_enum_variant,
    reason = "it is matched at once, and most are records and responses"
)]
enum Next {
    Response(Result<Option<ImportVoiceCallsResponse>, Status>),
    Sent,
    Record(Option<ImportRecord>),
    Closed,
    DeadlineExceeded,
}

impl<S: Stream<Item = ImportRecord>> Import<S> {
    async fn next(&mut self) -> Option<Result<ImportVoiceCallsResponse, Error>> {
        loop {
            if self.ended {
                return None;
            }
            if self.is_read && self.window.is_empty() {
                self.finish().await;
                return None;
            }
            let error = match self.step().await {
                Ok(Some(response)) => return Some(Ok(response)),
                Ok(None) => continue,
                Err(error) => error,
            };
            self.connection = None;
            self.window.sent = 0;
            self.failures += 1;
            let error = error.with_attempts(self.failures, self.client.deadline, None);
            let delay = match retry::reopen_delay(&error, self.failures) {
                Some(delay) => Ok(delay),
                None => self.token.reopen_delay(&self.client, error.clone()).await,
            };
            match delay {
                Ok(delay) if Instant::now() + delay < self.give_up_at => sleep(delay).await,
                Ok(_) => return Some(Err(error)),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Handles the next event, and returns the response if it was one.
    async fn step(&mut self) -> Result<Option<ImportVoiceCallsResponse>, Error> {
        let Some(connection) = &mut self.connection else {
            if self.window.is_empty() {
                // A connection is opened when there is something to send.
                let record = self.records.next().await;
                self.add(record);
            } else {
                self.connection = Some(self.connect().await?);
            }
            return Ok(None);
        };
        let has_unsent = self.window.has_unsent();
        if self.is_read && !has_unsent {
            connection.out = None;
        }
        let may_read = !self.is_read && !has_unsent && !self.window.is_full();
        let next = tokio::select! {
            biased;
            response = connection.responses.message() => Next::Response(response),
            permit = reserve(connection.out.as_ref()), if has_unsent => match permit {
                Some(permit) => {
                    permit.send(self.window.send());
                    Next::Sent
                }
                None => Next::Closed,
            },
            record = self.records.next(), if may_read => Next::Record(record),
            () = sleep_until(self.give_up_at), if !self.window.is_empty() => Next::DeadlineExceeded,
        };
        match next {
            Next::Response(Ok(Some(response))) => {
                self.failures = 0;
                self.token.accepted();
                self.give_up_at = Instant::now() + self.client.deadline;
                Ok(self.window.acknowledge(response))
            }
            Next::Response(Ok(None)) | Next::Closed => Err(self.interruption().await),
            Next::Response(Err(status)) => Err(self.client.error(&status)),
            Next::Sent => Ok(None),
            Next::Record(record) => {
                self.add(record);
                Ok(None)
            }
            Next::DeadlineExceeded => Err(Error::deadline_exceeded()),
        }
    }

    /// Adds a record to the window, or notes that there are no more.
    fn add(&mut self, record: Option<ImportRecord>) {
        if self.window.is_empty() {
            self.give_up_at = Instant::now() + self.client.deadline;
        }
        match record {
            Some(record) => self.window.push(record),
            None => self.is_read = true,
        }
    }

    async fn connect(&mut self) -> Result<Connection, Error> {
        let (out, queue) = mpsc::channel(OUT_QUEUE);
        let settings = ImportVoiceCallsRequest {
            message: Some(Message::Settings(self.settings)),
        };
        let first = stream::iter([settings]);
        let rest = stream::unfold(queue, async |mut queue: mpsc::Receiver<_>| {
            Some((queue.recv().await?, queue))
        });
        self.token.bearer = self.client.token(self.give_up_at).await?;
        let bearer = self.token.bearer.as_ref();
        let request = self
            .client
            .request(first.chain(rest), self.failures, None, bearer);
        let mut stub = self.client.stub.clone();
        let opened = timeout_at(self.give_up_at, stub.import_voice_calls(request)).await;
        match opened {
            Ok(Ok(response)) => Ok(Connection {
                out: Some(out),
                responses: response.into_inner(),
            }),
            Ok(Err(status)) => Err(self.client.error(&status)),
            Err(_) => Err(Error::deadline_exceeded()),
        }
    }

    /// Why the stream was interrupted: the last of the responses says so.
    async fn interruption(&mut self) -> Error {
        let rest = match &mut self.connection {
            Some(connection) => timeout_at(self.give_up_at, connection.responses.message()).await,
            None => Ok(Ok(None)),
        };
        match rest {
            Ok(Err(status)) => self.client.error(&status),
            _ => Error::new(Code::Unavailable, "the stream was interrupted"),
        }
    }

    /// Waits until the service ends the stream. All records have their response, but the
    /// service may still run ANALYZE, and would not if the stream were cancelled.
    async fn finish(&mut self) {
        self.ended = true;
        if let Some(mut connection) = self.connection.take() {
            connection.out = None;
            // The result does not matter: every record has its response.
            let _ = timeout(self.client.deadline, connection.responses.message()).await;
        }
    }
}

/// A permit for one more message; `None` when the stream has ended.
async fn reserve(
    out: Option<&mpsc::Sender<ImportVoiceCallsRequest>>,
) -> Option<mpsc::Permit<'_, ImportVoiceCallsRequest>> {
    out?.reserve().await.ok()
}
