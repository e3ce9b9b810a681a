//! The stream of WatchVoiceCalls: a snapshot if the client asks for one, then events and
//! checkpoints until the client ends the stream, its deadline passes, or the server ends it with a
//! last checkpoint: with DRAINING at shutdown and before its connection closes, and with
//! UNAUTHENTICATED when the caller's credentials end. `context` has the signals.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;

use super::resume::resume;
use crate::{
    api::{
        context::StopSignals,
        error::Error,
        request::filter,
        response::{calls, changes, chunk::next_chunk},
        tokens::resume_token::ResumeToken,
        violations::Violations,
    },
    domain::{Change, Narrowing, Timestamp, View, view::Disclosure},
    feed::{Cursor, Feed, Point, QueuedSnapshot, SharedBatch},
    proto::{
        self, EventBatch, put_event, watch_voice_calls_request::Start,
        watch_voice_calls_response::Message,
    },
    store::{Log, LogError, Position, Tail},
};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Proxies cut streams that are silent for a minute, whatever HTTP/2 pings say.
const MAX_INTERVAL: Duration = Duration::from_secs(30);
/// The head is stale after this many intervals without confirmation.
const UNCONFIRMED_INTERVALS: u32 = 3;
/// A stream survives any outage of the database that is shorter than this.
const MIN_STALE_AFTER: Duration = Duration::from_secs(2);
/// The most calls in a page of the snapshot.
const SNAPSHOT_PAGE: usize = 250;
const SNAPSHOT_PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// A validated request for a watch.
#[derive(Debug)]
pub(crate) struct WatchQuery {
    view: Arc<View>,
    start: Start,
    interval: Duration,
    include_previous: bool,
}

/// Validates the request of a caller with this narrowing.
pub(crate) fn parse(
    request: proto::WatchVoiceCallsRequest,
    narrowing: Option<Arc<Narrowing>>,
) -> Result<WatchQuery, Violations> {
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
        view: Arc::new(View { filter, narrowing }),
        start,
        interval,
        include_previous: request.include_previous,
    })
}

fn interval(requested: Option<prost_types::Duration>, violations: &mut Violations) -> Duration {
    let Some(requested) = requested else {
        return DEFAULT_INTERVAL;
    };
    if !(-999_999_999..=999_999_999).contains(&requested.nanos) {
        violations.push("checkpoint_interval", "is not a valid Duration");
    }
    if requested.seconds < 0 {
        return MIN_INTERVAL;
    }
    // A negative duration does not convert, and is raised to the minimum like a short one.
    let requested = Duration::try_from(requested).unwrap_or_default();
    requested.clamp(MIN_INTERVAL, MAX_INTERVAL)
}

/// Starts the stream. A request that cannot be served is refused before it begins.
pub(crate) async fn start(
    log: &Log,
    feed: &Feed,
    query: WatchQuery,
    stop: StopSignals,
    deadline: Instant,
) -> Result<impl Stream<Item = Result<proto::WatchVoiceCallsResponse, Status>> + use<>, Error> {
    let tail = log.tail(deadline).await?;
    let phase = match query.start {
        Start::Snapshot(_) => Phase::Snapshot(Box::new(SnapshotReader(
            feed.queued_snapshot(Arc::clone(&query.view), SNAPSHOT_PAGE),
        ))),
        Start::Live(_) => Phase::live(feed, &query, tail.head, &tail),
        Start::AfterRevision(revision) => {
            let position = log.position(revision, deadline).await?;
            Phase::live(feed, &query, position, &tail)
        }
        Start::ResumeToken(ref token) => {
            let position = resume(feed, token, &tail, deadline).await?;
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
        stop,
        phase,
    };
    Ok(stream::unfold(watch, Watch::step))
}

enum Phase {
    Snapshot(Box<SnapshotReader>),
    Live(Box<Cursor>),
    /// The last checkpoint has been sent; the error that ends the stream comes next.
    Ending(Error),
    Ended,
}

impl Phase {
    fn live(feed: &Feed, query: &WatchQuery, position: Position, tail: &Tail) -> Self {
        Self::Live(Box::new(feed.cursor(
            Arc::clone(&query.view),
            position,
            tail,
            query.interval,
        )))
    }
}

/// The snapshot that a stream begins with.
struct SnapshotReader(QueuedSnapshot);

impl SnapshotReader {
    /// The next chunk; `None` after the last. While the snapshot waits in line, an empty one
    /// comes after each interval, because proxies end streams that are silent.
    async fn next(
        &mut self,
        interval: Duration,
        stop: &StopSignals,
    ) -> Result<Option<proto::SnapshotChunk>, Error> {
        tokio::select! {
            biased;
            () = self.0.turn() => {}
            error = stop.ended() => return Err(error),
            () = sleep(interval) => return Ok(Some(proto::SnapshotChunk::default())),
        }
        loop {
            let voice_calls = self.0.take(next_chunk)?;
            if !voice_calls.is_empty() {
                return Ok(Some(proto::SnapshotChunk { voice_calls }));
            }
            let deadline = Instant::now() + SNAPSHOT_PAGE_TIMEOUT;
            let deadline = stop.deadline.map_or(deadline, |end| end.min(deadline));
            let is_page = tokio::select! {
                is_page = self.0.read(deadline) => is_page?,
                error = stop.ended() => return Err(error),
            };
            if !is_page {
                return Ok(None);
            }
        }
    }
}

struct Watch {
    feed: Feed,
    /// The end of the log when the stream began.
    tail: Tail,
    query: WatchQuery,
    stop: StopSignals,
    /// When the end of the log was read, by the clock of this process.
    started_at: std::time::Instant,
    next_checkpoint: Instant,
    phase: Phase,
}

type Item = Result<proto::WatchVoiceCallsResponse, Status>;

/// What happens next in a live stream.
enum NextLive {
    Events(Arc<SharedBatch>),
    Checkpoint,
    /// The stream ends, after a last checkpoint.
    End(Error),
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
            Phase::Snapshot(reader) => {
                // Boxed, because this phase is short, and its state would otherwise stay part
                // of the stream's.
                let chunk = Box::pin(reader.next(self.query.interval, &self.stop)).await?;
                let position = reader.0.position().unwrap_or_default();
                Ok(Some(match chunk {
                    Some(chunk) => Message::SnapshotChunk(chunk),
                    None => self.complete_snapshot(position),
                }))
            }
            Phase::Live(cursor) => match next_live(cursor, self.next_checkpoint, &self.stop).await?
            {
                NextLive::Events(batch) => Ok(Some(self.events(&batch))),
                NextLive::Checkpoint => {
                    let point = cursor.point();
                    self.next_checkpoint = Instant::now() + self.query.interval;
                    self.checkpoint(point).map(Some)
                }
                NextLive::End(error) => {
                    let point = cursor.point();
                    self.phase = Phase::Ending(error);
                    self.checkpoint(point).map(Some)
                }
            },
            Phase::Ending(error) => Err(error.clone()),
            Phase::Ended => Ok(None),
        }
    }

    /// Goes on from the snapshot to the changes since.
    fn complete_snapshot(&mut self, position: Position) -> Message {
        // The log had come further when the snapshot began than when the stream did, which may
        // have waited in line.
        let tail = Tail {
            head: position,
            ..self.tail
        };
        self.phase = Phase::live(&self.feed, &self.query, position, &tail);
        self.next_checkpoint = Instant::now() + self.query.interval;
        Message::SnapshotComplete(proto::SnapshotComplete {
            revision: position.revision,
            resume_token: self.token(position),
        })
    }

    fn events(&self, batch: &SharedBatch) -> Message {
        let with_previous = self.query.include_previous;
        let encoded = batch.encoded(with_previous, |batch| encode_events(batch, with_previous));
        Message::EventBatch(EventBatch::encoded(encoded, self.token(batch.position)))
    }

    fn checkpoint(&self, point: Point) -> Result<Message, Error> {
        let allowed = MIN_STALE_AFTER.max(self.query.interval * UNCONFIRMED_INTERVALS);
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

async fn next_live(
    cursor: &mut Cursor,
    next_checkpoint: Instant,
    stop: &StopSignals,
) -> Result<NextLive, Error> {
    if let Err(error) = stop.check() {
        return Ok(NextLive::End(error));
    }
    if Instant::now() >= next_checkpoint {
        return Ok(NextLive::Checkpoint);
    }
    tokio::select! {
        biased;
        () = stop.ending.cancelled() => Ok(NextLive::End(Error::Draining)),
        batch = cursor.next() => Ok(NextLive::Events(batch.map_err(live_error)?)),
        () = sleep_until(next_checkpoint) => Ok(NextLive::Checkpoint),
        error = stop.ended() => match error {
            Error::DeadlineExceeded => Err(error),
            error => Ok(NextLive::End(error)),
        }
    }
}

/// Encodes the events as fields of an `EventBatch`.
fn encode_events(batch: &SharedBatch, with_previous: bool) -> Bytes {
    let mut encoded = Vec::with_capacity(batch.events.len() * 512);
    for (event, entry) in &batch.events {
        let event_type = changes::event_type(event.event_type).into();
        let encode =
            |change: &Change| changes::encode_change(change, event.disclosure, with_previous);
        // What is told to few is not kept.
        match event.disclosure {
            Disclosure::Whole => {
                put_event(
                    &mut encoded,
                    event_type,
                    entry.encoded(with_previous, encode),
                );
            }
            Disclosure::After | Disclosure::CallAndTime => {
                put_event(&mut encoded, event_type, &encode(entry.change()));
            }
        }
    }
    encoded.into()
}

/// Why a live stream cannot continue.
fn live_error(error: LogError) -> Error {
    match error {
        LogError::Compacted { .. } => Error::WatcherTooSlow,
        LogError::Ahead { .. } => Error::Log(LogError::Reset),
        other => Error::Log(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoint_intervals_are_clamped() {
        for (seconds, nanos, expected) in [
            (-1, 0, MIN_INTERVAL),
            (0, 99_000_000, MIN_INTERVAL),
            (0, 250_000_000, Duration::from_millis(250)),
            (30, 0, Duration::from_secs(30)),
            (30, 1, Duration::from_secs(30)),
            (60, 0, Duration::from_secs(30)),
            (i64::MAX, 0, Duration::from_secs(30)),
        ] {
            let mut violations = Violations::default();
            let requested = Some(prost_types::Duration { seconds, nanos });
            let interval = interval(requested, &mut violations);
            assert_eq!(interval, expected, "{seconds} s, {nanos} ns");
        }
        assert_eq!(interval(None, &mut Violations::default()), DEFAULT_INTERVAL);
    }
}
