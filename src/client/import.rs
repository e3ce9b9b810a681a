//! Imports that go on by themselves when they break off.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tonic::{Code, Status, Streaming};

use super::{Client, Error, retry, window::Window};
use crate::proto::{
    ImportRecord, ImportSettings, ImportVoiceCallsRequest, ImportVoiceCallsResponse,
    import_voice_calls_request::Message,
};

/// Records on their way to the connection.
const OUT_QUEUE: usize = 64;

impl Client {
    /// Imports records, and answers what became of each, with the sequence it
    /// came with. It sends as fast as the service takes them, as long as the
    /// answers are read; at most 4096 records, or 16 MiB, wait for theirs.
    ///
    /// When the stream breaks, it is opened anew and everything from the first
    /// record without an answer on is sent again, in order, so that the calls end
    /// up the same under any conflict policy. Each record is still answered once,
    /// but one whose answer was lost may be UNCHANGED or SKIPPED then. The stream
    /// ends with an error when it is refused for good, or when records have waited
    /// for an answer longer than the deadline.
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
    /// There are no more records than those in the window.
    is_read: bool,
    window: Window,
    connection: Option<Connection>,
    /// Failures since the last answer.
    failures: u32,
    /// Unless an answer comes before, or none is waited for.
    give_up_at: Instant,
    ended: bool,
}

struct Connection {
    /// `None` once everything is sent.
    out: Option<mpsc::Sender<ImportVoiceCallsRequest>>,
    answers: Streaming<ImportVoiceCallsResponse>,
}

/// What happens next.
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart at once, and most are records and answers"
)]
enum Next {
    Answer(Result<Option<ImportVoiceCallsResponse>, Status>),
    Sent,
    Record(Option<ImportRecord>),
    Broken,
    OutOfTime,
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
                Ok(Some(answer)) => return Some(Ok(answer)),
                Ok(None) => continue,
                Err(error) => error,
            };
            self.connection = None;
            self.window.sent = 0;
            self.failures += 1;
            let error = error.after(self.failures, self.client.deadline, None);
            match retry::wait_of_stream(&error, self.failures) {
                Some(wait) if Instant::now() + wait < self.give_up_at => sleep(wait).await,
                _ => return Some(Err(error)),
            }
        }
    }

    /// Takes one step forward, and answers an answer if it was one.
    async fn step(&mut self) -> Result<Option<ImportVoiceCallsResponse>, Error> {
        let Some(connection) = &mut self.connection else {
            if self.window.is_empty() {
                // A connection is made when there is something to send.
                let record = self.records.next().await;
                self.take(record);
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
            answer = connection.answers.message() => Next::Answer(answer),
            room = room(connection.out.as_ref()), if has_unsent => match room {
                Some(room) => {
                    room.send(self.window.send());
                    Next::Sent
                }
                None => Next::Broken,
            },
            record = self.records.next(), if may_read => Next::Record(record),
            () = sleep_until(self.give_up_at), if !self.window.is_empty() => Next::OutOfTime,
        };
        match next {
            Next::Answer(Ok(Some(answer))) => {
                self.failures = 0;
                self.give_up_at = Instant::now() + self.client.deadline;
                Ok(self.window.answer(answer))
            }
            Next::Answer(Ok(None)) | Next::Broken => Err(self.broken().await),
            Next::Answer(Err(status)) => Err(self.client.error(&status)),
            Next::Sent => Ok(None),
            Next::Record(record) => {
                self.take(record);
                Ok(None)
            }
            Next::OutOfTime => Err(Error::out_of_time()),
        }
    }

    /// Takes a record in, or notes that there are no more.
    fn take(&mut self, record: Option<ImportRecord>) {
        if self.window.is_empty() {
            self.give_up_at = Instant::now() + self.client.deadline;
        }
        match record {
            Some(record) => self.window.push(record),
            None => self.is_read = true,
        }
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let (out, queue) = mpsc::channel(OUT_QUEUE);
        let settings = ImportVoiceCallsRequest {
            message: Some(Message::Settings(self.settings)),
        };
        let first = stream::iter([settings]);
        let rest = stream::unfold(queue, async |mut queue: mpsc::Receiver<_>| {
            Some((queue.recv().await?, queue))
        });
        let request = self.client.request(first.chain(rest), self.failures, None);
        let mut stub = self.client.stub.clone();
        let opened = timeout_at(self.give_up_at, stub.import_voice_calls(request)).await;
        match opened {
            Ok(Ok(response)) => Ok(Connection {
                out: Some(out),
                answers: response.into_inner(),
            }),
            Ok(Err(status)) => Err(self.client.error(&status)),
            Err(_) => Err(Error::out_of_time()),
        }
    }

    /// Why the stream broke: the answers end with it.
    async fn broken(&mut self) -> Error {
        let rest = match &mut self.connection {
            Some(connection) => timeout_at(self.give_up_at, connection.answers.message()).await,
            None => Ok(Ok(None)),
        };
        match rest {
            Ok(Err(status)) => self.client.error(&status),
            _ => Error::new(Code::Unavailable, "the stream was interrupted"),
        }
    }

    /// Everything is answered; the service may still have something to do, which
    /// it would leave if the stream went away.
    async fn finish(&mut self) {
        self.ended = true;
        if let Some(mut connection) = self.connection.take() {
            connection.out = None;
            // Whatever it says: every record is answered.
            let _ = timeout(self.client.deadline, connection.answers.message()).await;
        }
    }
}

/// Room for one more message; `None` when nobody takes any.
async fn room(
    out: Option<&mpsc::Sender<ImportVoiceCallsRequest>>,
) -> Option<mpsc::Permit<'_, ImportVoiceCallsRequest>> {
    out?.reserve().await.ok()
}
