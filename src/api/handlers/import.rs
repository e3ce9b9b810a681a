//! The stream of ImportVoiceCalls: records in, what became of each out.
//!
//! Records are gathered into chunks, and a few chunks are under way at once.
//! Nothing more is read while they are all full, or while answers wait to be
//! read: the database's pace is the sender's, and memory is bounded.

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
use tokio::time::Instant;
use tonic::{Status, Streaming};

use crate::{
    api::{
        context::Ends,
        error::{self, Error},
        request::{commands, fields, uids},
        violations::Violations,
    },
    domain::{ConflictPolicy, Record, Timestamp, Uuid, command::RecordTimes},
    proto::{
        self, import_voice_calls_request::Message, import_voice_calls_response::Result as Answer,
    },
    store::{ImportOutcome, Imported, RecordError, Store, WriteError},
};

/// A chunk is full at so many records or bytes.
const CHUNK_RECORDS: usize = 256;
const CHUNK_BYTES: usize = 512 * 1024;
/// Chunks under way: two fill a batch, two more wait for the next one.
const MAX_UNDER_WAY: usize = 4;
/// So many new calls are worth a look at the table.
const MANY_CREATED: usize = 10_000;
const REFRESH_TIMEOUT: Duration = Duration::from_secs(30);

/// Imports what comes in, until either side ends it.
pub(crate) fn run(
    store: Store,
    records: Streaming<proto::ImportVoiceCallsRequest>,
    ends: Ends,
) -> impl Stream<Item = Result<proto::ImportVoiceCallsResponse, Status>> {
    let import = Import {
        store,
        incoming: Some(records),
        ends,
        policy: None,
        chunk: Chunk::default(),
        under_way: FuturesUnordered::new(),
        answers: VecDeque::new(),
        created: 0,
        failure: None,
    };
    stream::unfold(import, Import::step)
}

struct Import {
    store: Store,
    /// `None` once there is nothing more to read.
    incoming: Option<Streaming<proto::ImportVoiceCallsRequest>>,
    ends: Ends,
    /// From the first message.
    policy: Option<ConflictPolicy>,
    /// What is being gathered.
    chunk: Chunk,
    under_way: FuturesUnordered<BoxFuture<'static, Result<Vec<Response>, WriteError>>>,
    answers: VecDeque<Response>,
    /// How many calls are new.
    created: usize,
    /// Why it ends, once everything under way is answered.
    failure: Option<Status>,
}

type Request = proto::ImportVoiceCallsRequest;
type Response = proto::ImportVoiceCallsResponse;

/// What happens next.
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart at once, and most are messages"
)]
enum Next {
    Answers(Result<Vec<Response>, WriteError>),
    Message(Result<Option<Request>, Status>),
    Submit,
    End(Error),
}

impl Import {
    async fn step(mut self) -> Option<(Result<Response, Status>, Self)> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Some((Ok(answer), self));
            }
            let is_read = self.incoming.is_none();
            if is_read && self.chunk.is_empty() && self.under_way.is_empty() {
                self.analyze_if_grown().await;
                let failure = self.failure.take()?;
                return Some((Err(failure), self));
            }
            match self.next().await {
                Next::Answers(Ok(answers)) => {
                    self.created += answers.iter().filter(|answer| is_created(answer)).count();
                    self.answers.extend(answers);
                }
                Next::Answers(Err(error)) => self.fail(Error::Import(error)),
                Next::Message(Ok(Some(request))) => {
                    if let Err(error) = self.take(request) {
                        self.fail(error);
                    }
                }
                Next::Message(Ok(None)) => self.incoming = None,
                Next::Message(Err(status)) => {
                    self.incoming = None;
                    self.failure.get_or_insert(status);
                }
                Next::Submit => self.submit(),
                Next::End(error) => self.fail(error),
            }
        }
    }

    /// Ends it when what is under way is answered; what is only gathered is left.
    fn fail(&mut self, error: Error) {
        self.incoming = None;
        self.chunk = Chunk::default();
        self.failure.get_or_insert(error.into());
    }

    /// Runs ANALYZE after many creates: until then the database plans lists by what it knew
    /// of a smaller table, and they are slow.
    async fn analyze_if_grown(&mut self) {
        if mem::take(&mut self.created) >= MANY_CREATED {
            let deadline = Instant::now() + REFRESH_TIMEOUT;
            // What fails is logged, and the database looks some time by itself.
            let _ = self.store.analyze(deadline).await;
        }
    }

    async fn next(&mut self) -> Next {
        let is_full = self.chunk.is_full();
        if is_full && self.under_way.len() < MAX_UNDER_WAY {
            return Next::Submit;
        }
        let may_end = self.failure.is_none();
        // A chunk that is not full goes when the sender pauses, unless others are
        // under way: meanwhile it may grow.
        let may_go = !self.chunk.is_empty() && self.under_way.is_empty();
        // One more than there should be was sent to let the next come after it.
        let may_read = self.incoming.is_some() && !is_full && self.under_way.len() <= MAX_UNDER_WAY;
        tokio::select! {
            biased;
            Some(answers) = self.under_way.next() => Next::Answers(answers),
            () = self.ends.draining.cancelled(), if may_end => Next::End(Error::Draining),
            () = self.ends.deadline(), if may_end => Next::End(Error::DeadlineExceeded),
            message = read(&mut self.incoming), if may_read => {
                Next::Message(message)
            }
            () = std::future::ready(()), if may_go => Next::Submit,
        }
    }

    fn take(&mut self, request: Request) -> Result<(), Error> {
        match (request.message, self.policy) {
            (Some(Message::Settings(settings)), None) => {
                self.policy = Some(policy(settings)?);
            }
            (Some(Message::Record(record)), Some(_)) => {
                let (sequence, bytes) = (record.sequence, record.encoded_len());
                let named = record
                    .voice_call
                    .as_ref()
                    .map(|call| Uuid::parse_str(&call.uid));
                match parse_record(record.voice_call, self.store.now()) {
                    Ok(record) => self.gather(sequence, record, bytes),
                    Err(violations) => {
                        let uid = named.and_then(Result::ok);
                        self.answers.push_back(refused(sequence, uid, violations));
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

    fn gather(&mut self, sequence: i64, record: Record, bytes: usize) {
        // No uid twice in a chunk. Records wait in line, so that the second is
        // written after the first.
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
        let import = import(self.store.clone(), sequences, records.into(), policy);
        self.under_way.push(import.boxed());
    }
}

async fn read(incoming: &mut Option<Streaming<Request>>) -> Result<Option<Request>, Status> {
    match incoming {
        Some(incoming) => incoming.message().await,
        None => Ok(None),
    }
}

/// Records that are written together.
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

/// Imports a chunk.
async fn import(
    store: Store,
    sequences: Vec<i64>,
    records: Arc<[Record]>,
    policy: ConflictPolicy,
) -> Result<Vec<Response>, WriteError> {
    let imported = store.import(Arc::clone(&records), policy).await?;
    let answers = sequences.iter().zip(records.iter()).zip(imported);
    Ok(answers
        .map(|((sequence, record), result)| answer(*sequence, record.uid, result))
        .collect())
}

fn is_created(answer: &Response) -> bool {
    let Some(Answer::Success(success)) = &answer.result else {
        return false;
    };
    success.outcome() == proto::ImportOutcome::Created
}

fn answer(sequence: i64, uid: Uuid, result: Result<Imported, RecordError>) -> Response {
    use proto::ImportOutcome as O;
    let result = match result {
        Ok(imported) => Answer::Success(proto::ImportSuccess {
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

fn failed(error: Error) -> Answer {
    Answer::Error(error::of_record(error))
}

fn response(sequence: i64, uid: String, result: Answer) -> Response {
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

/// A record, checked.
fn parse_record(call: Option<proto::VoiceCall>, now: Timestamp) -> Result<Record, Violations> {
    let mut violations = Violations::default();
    let Some(call) = call else {
        violations.push("voice_call", "is required");
        return Err(violations);
    };
    let uid = uids::uid(&call.uid, "voice_call.uid", &mut violations);
    let mut time = |value, path| fields::past(value, path, now, &mut violations);
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
