//! The stream of ImportVoiceCalls: it reads records and responds with the result of each.
//!
//! Records are collected into chunks, and a few chunks are in progress at once. Nothing more
//! is read while they are all full, or while responses wait to be read. So the client sends
//! no faster than the database writes, and memory is bounded. No uid occurs twice in a chunk, and
//! chunks stay in order, so the records of one call are written in their order.
//!
//! An import that has been silent for too long is ended by `admission/request_body`.

use std::{
    collections::{HashSet, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt, Stream, StreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use prost::Message as _;
use tokio::{task::yield_now, time::Instant};
use tonic::{Status, Streaming};

use crate::{
    api::{
        context::StopSignals,
        error::{self, Error},
        framework,
        request::{commands, fields, uids},
        violations::Violations,
    },
    domain::{ConflictPolicy, Record, Timestamp, Uuid, command::RecordTimes},
    proto::{
        self, import_voice_calls_request::Message,
        import_voice_calls_response::Result as RecordResult,
    },
    store::{ImportOutcome, Imported, RecordError, Store, WriteError},
};

/// A chunk is full at this many records or bytes, whichever comes first.
const CHUNK_RECORDS: usize = 256;
const CHUNK_BYTES: usize = 512 * 1024;
/// Records and responses that are handled before others on the thread have their turn.
const STEPS_IN_A_TURN: u32 = 32;
/// The most chunks in progress: two fill a batch, two more wait for the next one.
const MAX_CHUNKS_IN_PROGRESS: usize = 4;
/// Run ANALYZE after this many creates.
const ANALYZE_AFTER_CREATES: usize = 10_000;
const ANALYZE_TIMEOUT: Duration = Duration::from_secs(30);

/// Imports the records of the stream, until either side ends it.
pub(crate) fn run(
    store: Store,
    records: Streaming<proto::ImportVoiceCallsRequest>,
    actor: Option<Arc<str>>,
    stop: StopSignals,
) -> impl Stream<Item = Result<proto::ImportVoiceCallsResponse, Status>> {
    let import = Import {
        store,
        incoming: Some(records),
        steps: 0,
        actor,
        stop,
        policy: None,
        chunk: Chunk::default(),
        in_progress: FuturesUnordered::new(),
        responses: VecDeque::new(),
        created: 0,
        failure: None,
    };
    stream::unfold(import, Import::step)
}

struct Import {
    store: Store,
    /// `None` once there is nothing more to read.
    incoming: Option<Streaming<proto::ImportVoiceCallsRequest>>,
    /// Counts what it has done, so that others on the thread have their turn.
    steps: u32,
    /// Who is importing.
    actor: Option<Arc<str>>,
    stop: StopSignals,
    /// From the first message.
    policy: Option<ConflictPolicy>,
    /// The records that are not submitted yet.
    chunk: Chunk,
    in_progress: FuturesUnordered<BoxFuture<'static, Result<Vec<Response>, WriteError>>>,
    responses: VecDeque<Response>,
    /// The number of calls that were created.
    created: usize,
    /// Why the stream ends, once the chunks in progress have their results.
    failure: Option<Status>,
}

type Request = proto::ImportVoiceCallsRequest;
type Response = proto::ImportVoiceCallsResponse;

/// The next event of the stream.
#[expect(
    clippy::large_enum_variant,
    reason = "it is matched at once, and most are messages"
)]
enum Next {
    Responses(Result<Vec<Response>, WriteError>),
    Message(Result<Option<Request>, Status>),
    Submit,
    End(Error),
}

impl Import {
    async fn step(mut self) -> Option<(Result<Response, Status>, Self)> {
        loop {
            self.steps = self.steps.wrapping_add(1);
            if self.steps.is_multiple_of(STEPS_IN_A_TURN) {
                yield_now().await;
            }
            if let Some(response) = self.responses.pop_front() {
                return Some((Ok(response), self));
            }
            let is_read = self.incoming.is_none();
            if is_read && self.chunk.is_empty() && self.in_progress.is_empty() {
                self.analyze_if_grown().await;
                let failure = self.failure.take()?;
                return Some((Err(failure), self));
            }
            match self.next().await {
                Next::Responses(Ok(responses)) => {
                    self.created += responses
                        .iter()
                        .filter(|response| is_created(response))
                        .count();
                    self.responses.extend(responses);
                }
                Next::Responses(Err(error)) => self.fail(Error::Import(error)),
                Next::Message(Ok(Some(request))) => {
                    if let Err(error) = self.accept(request) {
                        self.fail(error);
                    }
                }
                Next::Message(Ok(None)) => self.incoming = None,
                Next::Message(Err(status)) => {
                    self.incoming = None;
                    self.failure.get_or_insert(framework::complete(status));
                }
                Next::Submit => self.submit(),
                Next::End(error) => self.fail(error),
            }
        }
    }

    /// Ends the stream once the chunks in progress have their results. Records that are not
    /// submitted yet are dropped, without a response.
    fn fail(&mut self, error: Error) {
        self.incoming = None;
        self.chunk = Chunk::default();
        self.failure.get_or_insert(error.into());
    }

    /// Runs ANALYZE after many creates: until then the database plans lists with the
    /// statistics of a smaller table, and they are slow. A stream that ends early does not wait
    /// for it: autovacuum will analyze the table later.
    async fn analyze_if_grown(&mut self) {
        let has_grown = mem::take(&mut self.created) >= ANALYZE_AFTER_CREATES;
        if !has_grown || self.failure.is_some() {
            return;
        }
        let deadline = Instant::now() + ANALYZE_TIMEOUT;
        tokio::select! {
            // A failure is logged.
            _ = self.store.analyze(deadline) => {}
            _ = self.stop.ended() => {}
        }
    }

    async fn next(&mut self) -> Next {
        let is_full = self.chunk.is_full();
        if is_full && self.in_progress.len() < MAX_CHUNKS_IN_PROGRESS {
            return Next::Submit;
        }
        let may_end = self.failure.is_none();
        // A chunk that is not full is submitted when the sender pauses, unless others are in
        // progress: until they are done it can grow.
        let may_submit = !self.chunk.is_empty() && self.in_progress.is_empty();
        // There is one chunk more than the limit if a repeated uid made one early.
        let may_read =
            self.incoming.is_some() && !is_full && self.in_progress.len() <= MAX_CHUNKS_IN_PROGRESS;
        tokio::select! {
            biased;
            Some(responses) = self.in_progress.next() => Next::Responses(responses),
            error = self.stop.ended(), if may_end => Next::End(error),
            message = read(&mut self.incoming), if may_read => {
                Next::Message(message)
            }
            () = std::future::ready(()), if may_submit => Next::Submit,
        }
    }

    fn accept(&mut self, request: Request) -> Result<(), Error> {
        match (request.message, self.policy) {
            (Some(Message::Settings(settings)), None) => {
                self.policy = Some(policy(settings)?);
            }
            (Some(Message::Record(record)), Some(_)) => {
                let (sequence, bytes) = (record.sequence, record.encoded_len());
                let uid = record
                    .voice_call
                    .as_ref()
                    .map(|call| Uuid::parse_str(&call.uid));
                match parse_record(record.voice_call, self.store.now()) {
                    Ok(record) => self.add_to_chunk(sequence, record, bytes),
                    Err(violations) => {
                        let uid = uid.and_then(Result::ok);
                        self.responses.push_back(refused(sequence, uid, violations));
                    }
                }
            }
            (Some(Message::Settings(_)), Some(_)) => {
                return Err(invalid("settings", "must be in the first message only"));
            }
            (Some(Message::Record(_)), None) => {
                return Err(invalid("settings", "must be the first message"));
            }
            (None, _) => return Err(invalid("message", "is required: settings or record")),
        }
        Ok(())
    }

    fn add_to_chunk(&mut self, sequence: i64, record: Record, bytes: usize) {
        // A chunk has each uid only once. Chunks are committed in order, so the second record
        // of a uid is written after the first.
        if self.chunk.uids.contains(&record.uid) {
            self.submit();
        }
        self.chunk.uids.insert(record.uid);
        self.chunk.sequences.push(sequence);
        self.chunk.records.push(record);
        self.chunk.bytes += bytes;
    }

    fn submit(&mut self) {
        let Chunk {
            sequences, records, ..
        } = mem::take(&mut self.chunk);
        let policy = self.policy.unwrap_or(ConflictPolicy::ReplaceIfNewer);
        let (store, actor) = (self.store.clone(), self.actor.clone());
        let import = import(store, sequences, records.into(), policy, actor);
        self.in_progress.push(import.boxed());
    }
}

async fn read(incoming: &mut Option<Streaming<Request>>) -> Result<Option<Request>, Status> {
    match incoming {
        Some(incoming) => incoming.message().await,
        None => Ok(None),
    }
}

/// Records that are submitted together.
#[derive(Default)]
struct Chunk {
    sequences: Vec<i64>,
    records: Vec<Record>,
    uids: HashSet<Uuid>,
    bytes: usize,
}

impl Chunk {
    fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn is_full(&self) -> bool {
        self.records.len() >= CHUNK_RECORDS || self.bytes >= CHUNK_BYTES
    }
}

/// Imports a chunk, and returns the responses to its records.
async fn import(
    store: Store,
    sequences: Vec<i64>,
    records: Arc<[Record]>,
    policy: ConflictPolicy,
    actor: Option<Arc<str>>,
) -> Result<Vec<Response>, WriteError> {
    let imported = store.import(Arc::clone(&records), policy, actor).await?;
    let responses = sequences.iter().zip(records.iter()).zip(imported);
    Ok(responses
        .map(|((sequence, record), result)| record_response(*sequence, record.uid, result))
        .collect())
}

fn is_created(response: &Response) -> bool {
    let Some(RecordResult::Success(success)) = &response.result else {
        return false;
    };
    success.outcome() == proto::ImportOutcome::Created
}

fn record_response(sequence: i64, uid: Uuid, result: Result<Imported, RecordError>) -> Response {
    use proto::ImportOutcome as O;
    let result = match result {
        Ok(imported) => RecordResult::Success(proto::ImportSuccess {
            outcome: match imported.outcome {
                ImportOutcome::Created => O::Created,
                ImportOutcome::Replaced => O::Replaced,
                ImportOutcome::Unchanged => O::Unchanged,
                ImportOutcome::Skipped => O::Skipped,
            }
            .into(),
            revision: imported.revision,
        }),
        Err(RecordError::Rejected(rejection)) => failed(Error::Import(WriteError::Rejected {
            place: 0,
            rejection,
        })),
        Err(RecordError::Refused) => failed(Error::Import(WriteError::Internal)),
    };
    response(sequence, uid.to_string(), result)
}

fn refused(sequence: i64, uid: Option<Uuid>, violations: Violations) -> Response {
    let uid = uid.map(|uid| uid.to_string()).unwrap_or_default();
    response(sequence, uid, failed(Error::InvalidFields(violations)))
}

fn failed(error: Error) -> RecordResult {
    RecordResult::Error(error::to_import_error(error))
}

fn response(sequence: i64, uid: String, result: RecordResult) -> Response {
    Response {
        sequence,
        uid,
        result: Some(result),
    }
}

fn invalid(path: &str, description: &str) -> Error {
    let mut violations = Violations::default();
    violations.push(path, description);
    violations.into()
}

fn policy(settings: proto::ImportSettings) -> Result<ConflictPolicy, Error> {
    use proto::ImportConflictPolicy as P;
    match P::try_from(settings.conflict_policy) {
        Ok(P::Unspecified | P::ReplaceIfNewer) => Ok(ConflictPolicy::ReplaceIfNewer),
        Ok(P::Replace) => Ok(ConflictPolicy::Replace),
        Ok(P::Skip) => Ok(ConflictPolicy::Skip),
        Err(_) => Err(invalid(
            "settings.conflict_policy",
            &format!("has the unknown value {}", settings.conflict_policy),
        )),
    }
}

/// Validates a record.
fn parse_record(call: Option<proto::VoiceCall>, now: Timestamp) -> Result<Record, Violations> {
    let mut violations = Violations::default();
    let Some(call) = call else {
        violations.push("voice_call", "is required");
        return Err(violations);
    };
    let uid = uids::uid(&call.uid, "voice_call.uid", &mut violations);
    let mut time = |value, path| fields::past_timestamp(value, path, now, &mut violations);
    let created_at = time(call.created_at, "voice_call.created_at");
    let updated_at = time(call.updated_at, "voice_call.updated_at");
    let deleted_at = time(call.deleted_at, "voice_call.deleted_at");
    let attributes = commands::attributes(call, "voice_call", &mut violations);
    let (uid, attributes) = violations.or(uid.zip(attributes))?;
    Ok(Record {
        uid,
        times: created_at
            .or(updated_at)
            .zip(updated_at.or(created_at))
            .map(|(created_at, updated_at)| RecordTimes {
                created_at,
                updated_at,
            }),
        deleted_at,
        attributes,
    })
}
