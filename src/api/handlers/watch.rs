//! The stream of WatchVoiceCalls: a snapshot if wanted, then events and
//! checkpoints until either side ends it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::changes;
use crate::{
    api::{
        context::Ends,
        error::Error,
        request::filter,
        response::{budget::ResponseBudget, calls},
        tokens::resume_token::ResumeToken,
        violations::Violations,
    },
    domain::{Call, Filter, Timestamp},
    feed::{Cursor, Feed, SharedBatch, Snapshot},
    proto::{
        self, EventBatch, put_event, watch_voice_calls_request::Start,
        watch_voice_calls_response::Message,
    },
    store::{LogError, Position, Tail},
};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// A head that was not confirmed for so many intervals is not known any more.
const UNCONFIRMED_INTERVALS: u32 = 3;
/// A hiccup of the database that no stream ends for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Calls that are read at once.
const SNAPSHOT_PAGE: usize = 250;
const SNAPSHOT_PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a client wants to watch.
#[derive(Debug)]
pub(crate) struct WatchQuery {
    filter: Arc<Filter>,
    start: Start,
    interval: Duration,
    include_previous: bool,
}

/// The request, checked.
pub(crate) fn parse(request: proto::WatchVoiceCallsRequest) -> Result<WatchQuery, Violations> {
    let mut violations = Violations::default();
    let filter = filter::filter(request.filter, &mut violations);
    let interval = interval(request.checkpoint_interval, &mut violations);
    if request.start.is_none() {
        violations.push(
            "start",
            "is required: snapshot, live, after_revision or resume_token",
        );
    }
    if let Some(Start::AfterRevision(..0)) = request.start {
        violations.push("after_revision", "must not be negative");
    }
    let (start, filter) = violations.or(request.start.map(|start| (start, filter)))?;
    Ok(WatchQuery {
        filter: Arc::new(filter),
        start,
        interval,
        include_previous: request.include_previous,
    })
}

fn interval(wanted: Option<prost_types::Duration>, violations: &mut Violations) -> Duration {
    let Some(wanted) = wanted else {
        return DEFAULT_INTERVAL;
    };
    if !(-999_999_999..=999_999_999).contains(&wanted.nanos) {
        violations.push("checkpoint_interval", "is not a valid Duration");
    }
    if wanted.seconds < 0 {
        return MIN_INTERVAL;
    }
    // What is negative does not convert, and is brought in like what is short.
    let wanted = Duration::try_from(wanted).unwrap_or_default();
    wanted.clamp(MIN_INTERVAL, MAX_INTERVAL)
}

/// Starts the stream; what makes it impossible is refused before it begins.
pub(crate) async fn start(
    feed: &Feed,
    query: WatchQuery,
    ends: Ends,
    deadline: Instant,
) -> Result<impl Stream<Item = Result<proto::WatchVoiceCallsResponse, Status>> + use<>, Error> {
    let tail = feed.tail(deadline).await?;
    let phase = match query.start {
        Start::Snapshot(_) => Phase::Snapshot {
            snapshot: Box::new(feed.snapshot(Arc::clone(&query.filter), 0, SNAPSHOT_PAGE)),
            waiting: VecDeque::new(),
        },
        Start::Live(_) => Phase::live(feed, &query, tail.head, &tail),
        Start::AfterRevision(revision) => {
            let position = feed.position(revision, deadline).await?;
            Phase::live(feed, &query, position, &tail)
        }
        Start::ResumeToken(ref token) => {
            let position = changes::resume(feed, token, &tail, deadline).await?;
            Phase::live(feed, &query, position, &tail)
        }
    };
    let is_live = matches!(query.start, Start::Live(_));
    let now = Instant::now();
    let watch = Watch {
        feed: feed.clone(),
        tail,
        started_at: now.into_std(),
        next_checkpoint: if is_live { now } else { now + query.interval },
        query,
        ends,
        phase,
    };
    Ok(stream::unfold(watch, Watch::step))
}

enum Phase {
    Snapshot {
        snapshot: Box<Snapshot>,
        /// Read, and not sent yet.
        waiting: VecDeque<Call>,
    },
    Live(Box<Cursor>),
    /// The last checkpoint is sent; what follows is the end.
    Draining,
    Ended,
}

impl Phase {
    fn live(feed: &Feed, query: &WatchQuery, position: Position, tail: &Tail) -> Self {
        Self::Live(Box::new(feed.cursor(
            Arc::clone(&query.filter),
            position,
            tail,
            query.interval,
        )))
    }
}

struct Watch {
    feed: Feed,
    /// The end of the log when the stream began.
    tail: Tail,
    query: WatchQuery,
    ends: Ends,
    /// The end of the log was read then, by our own clock.
    started_at: std::time::Instant,
    next_checkpoint: Instant,
    phase: Phase,
}

type Item = Result<proto::WatchVoiceCallsResponse, Status>;

/// What happens next in a live stream.
enum Next {
    Events(Arc<SharedBatch>),
    Checkpoint,
    Drain,
}

impl Watch {
    async fn step(mut self) -> Option<(Item, Self)> {
        let message = match self.next().await {
            Ok(message) => message?,
            Err(error) => {
                self.phase = Phase::Ended;
                return Some((Err(error.into()), self));
            }
        };
        let response = proto::WatchVoiceCallsResponse {
            message: Some(message),
        };
        Some((Ok(response), self))
    }

    /// The next message; `None` after the end.
    async fn next(&mut self) -> Result<Option<Message>, Error> {
        match &mut self.phase {
            // It is over soon, and its state would stay in the stream's.
            Phase::Snapshot { .. } => Box::pin(self.next_of_snapshot()).await.map(Some),
            Phase::Live(_) => self.next_live().await.map(Some),
            Phase::Draining => Err(Error::Draining),
            Phase::Ended => Ok(None),
        }
    }

    async fn next_of_snapshot(&mut self) -> Result<Message, Error> {
        let Phase::Snapshot { snapshot, waiting } = &mut self.phase else {
            return Err(Error::Draining);
        };
        while waiting.is_empty() {
            let deadline = Instant::now() + SNAPSHOT_PAGE_TIMEOUT;
            let deadline = self.ends.deadline.map_or(deadline, |end| end.min(deadline));
            let page = tokio::select! {
                page = snapshot.next(deadline) => page?,
                () = self.ends.draining.cancelled() => return Err(Error::Draining),
            };
            match page {
                Some(page) => waiting.extend(page.calls),
                None => return self.complete(),
            }
        }
        let mut room = ResponseBudget::new();
        let mut voice_calls = Vec::new();
        while let Some(call) = waiting.pop_front() {
            let message = calls::call(call);
            let fits = room.take(&message);
            voice_calls.push(message);
            if !fits {
                break;
            }
        }
        Ok(Message::SnapshotChunk(proto::SnapshotChunk { voice_calls }))
    }

    /// From the snapshot to what has changed since.
    fn complete(&mut self) -> Result<Message, Error> {
        let position = match &self.phase {
            Phase::Snapshot { snapshot, .. } => snapshot.position().unwrap_or_default(),
            _ => return Err(Error::Draining),
        };
        self.phase = Phase::live(&self.feed, &self.query, position, &self.tail);
        self.next_checkpoint = Instant::now() + self.query.interval;
        Ok(Message::SnapshotComplete(proto::SnapshotComplete {
            revision: position.revision,
            resume_token: self.token(position),
        }))
    }

    async fn next_live(&mut self) -> Result<Message, Error> {
        let Phase::Live(cursor) = &mut self.phase else {
            return Err(Error::Draining);
        };
        let due = Instant::now() >= self.next_checkpoint;
        let next = if due {
            Next::Checkpoint
        } else {
            tokio::select! {
                biased;
                () = self.ends.draining.cancelled() => Next::Drain,
                delivery = cursor.next() => Next::Events(delivery.map_err(running)?),
                () = sleep_until(self.next_checkpoint) => Next::Checkpoint,
                () = self.ends.deadline() => return Err(Error::DeadlineExceeded),
            }
        };
        match next {
            Next::Events(delivery) => Ok(self.events(&delivery)),
            Next::Checkpoint => {
                self.next_checkpoint = Instant::now() + self.query.interval;
                self.checkpoint()
            }
            Next::Drain => {
                let last = self.checkpoint();
                self.phase = Phase::Draining;
                last
            }
        }
    }

    fn events(&self, delivery: &SharedBatch) -> Message {
        let with_previous = self.query.include_previous;
        let encoded = delivery.encoded(with_previous, |delivery| {
            encode_events(delivery, with_previous)
        });
        Message::EventBatch(EventBatch::encoded(encoded, self.token(delivery.position)))
    }

    fn checkpoint(&mut self) -> Result<Message, Error> {
        let Phase::Live(cursor) = &mut self.phase else {
            return Err(Error::Draining);
        };
        let point = cursor.point();
        let allowed = PATIENCE.max(self.query.interval * UNCONFIRMED_INTERVALS);
        let known_at = point
            .confirmed_at
            .map_or(self.started_at, |at| at.max(self.started_at));
        if known_at.elapsed() > allowed {
            return Err(Error::Read(crate::store::ReadError::Unavailable));
        }
        Ok(Message::Checkpoint(proto::Checkpoint {
            revision: point.position.revision,
            resume_token: self.token(point.position),
            head_revision: point.head_revision,
            read_time: (point.read_time > Timestamp::MIN)
                .then(|| calls::timestamp(point.read_time)),
        }))
    }

    fn token(&self, position: Position) -> String {
        ResumeToken {
            feed_id: self.tail.feed_id,
            position,
        }
        .encode()
    }
}

/// The events as fields of the batch.
fn encode_events(delivery: &SharedBatch, with_previous: bool) -> Bytes {
    let mut encoded = Vec::with_capacity(delivery.events.len() * 512);
    for (event, entry) in &delivery.events {
        let change = entry.encoded(with_previous, |change| {
            changes::encode_change(change, with_previous)
        });
        put_event(&mut encoded, changes::event_type(*event).into(), change);
    }
    encoded.into()
}

/// Why a stream that was under way cannot go on.
fn running(error: LogError) -> Error {
    match error {
        LogError::Compacted { .. } => Error::WatcherTooSlow,
        LogError::Ahead { .. } => Error::Log(LogError::Reset),
        other => Error::Log(other),
    }
}
