//! Watchers that resume by their token whenever their stream ends, and record every
//! message for the validators of `history`.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{interval, timeout},
};
use tonic::{Code, Status};
use voicecall::{
    domain::{self, Filter},
    proto::{
        VoiceCallFilter, VoiceCallStatus, WatchVoiceCallsRequest, watch_voice_calls_request::Start,
        watch_voice_calls_response::Message,
    },
};

use super::{
    history::{Session, revision_of},
    load::{TOO_LATE, hot_uid, reason, unexpected},
    server::client,
    tally::Tally,
    watcher::{Watcher, from, live, snapshot},
};

/// A stream without a message for so long is broken: the longest interval between
/// checkpoints is 1.2 seconds.
const SILENCE: Duration = Duration::from_secs(10);

/// How long the first response headers of a stream may take.
const START: Duration = Duration::from_secs(20);

/// When the watchers end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Not yet.
    None,
    /// At a checkpoint of this revision or a later one.
    Revision(i64),
    /// At once.
    GiveUp,
}

/// What one watcher asks for.
#[derive(Clone)]
pub(crate) struct WatchSpec {
    request: WatchVoiceCallsRequest,
    pub(crate) filter: Filter,
    /// After how many messages it drops the stream and resumes on the other replica.
    moves_after: Option<usize>,
}

/// Watches with several filters and starts.
pub(crate) fn watch_specs() -> Vec<WatchSpec> {
    let hot: Vec<String> = (0..3).map(hot_uid).collect();
    let everything = VoiceCallFilter {
        show_deleted: true,
        ..Default::default()
    };
    let everything = (
        everything,
        Filter {
            show_deleted: true,
            ..Filter::default()
        },
    );
    let missed = VoiceCallFilter {
        statuses: vec![VoiceCallStatus::Missed.into()],
        ..Default::default()
    };
    let missed = (
        missed,
        Filter {
            statuses: vec![domain::Status::Missed],
            ..Filter::default()
        },
    );
    let few = (
        VoiceCallFilter {
            uids: hot.clone(),
            ..Default::default()
        },
        Filter {
            uids: hot.iter().map(|uid| uid.parse().expect("good")).collect(),
            ..Filter::default()
        },
    );
    let starts = [snapshot(), live(), Start::AfterRevision(0)];
    let filters = [everything, missed, few];
    let spec = |(start, (wire, filter)): (Start, (VoiceCallFilter, Filter)),
                moves_after: Option<usize>| WatchSpec {
        request: WatchVoiceCallsRequest {
            filter: Some(wire),
            checkpoint_interval: Some(prost_types::Duration {
                seconds: i64::from(moves_after.is_some()),
                nanos: 200_000_000,
            }),
            ..from(start)
        },
        filter,
        moves_after,
    };
    let still = starts.clone().into_iter().zip(filters.clone());
    let moving = starts.into_iter().rev().zip(filters);
    still
        .map(|one| spec(one, None))
        .chain(moving.map(|one| spec(one, Some(20))))
        .collect()
}

/// Watches until the goal, from the first replica on.
pub(crate) async fn watch(
    spec: WatchSpec,
    mut replicas: [String; 2],
    goal: watch::Receiver<Goal>,
    tally: Arc<Tally>,
) -> Vec<Session> {
    let mut sessions = Vec::new();
    let mut request = spec.request.clone();
    let mut pause = interval(Duration::from_millis(20));
    while *goal.borrow() != Goal::GiveUp {
        pause.tick().await;
        let mut session = Session {
            resumed_from: match &request.start {
                Some(Start::AfterRevision(revision)) => Some(*revision),
                Some(Start::ResumeToken(token)) => Some(revision_of(token)),
                _ => None,
            },
            ..Session::default()
        };
        let mut client = client(&replicas[0]);
        let start = timeout(START, Watcher::start(&mut client, request.clone()));
        let end = match start.await {
            Ok(Ok(mut watcher)) => {
                let end = follow(&mut watcher, &mut session, &spec, &goal, &tally).await;
                // Without a token there is no point to resume from: it starts again.
                if !watcher.token.is_empty() {
                    request.start = Some(Start::ResumeToken(watcher.token));
                    sessions.push(session);
                }
                end
            }
            Ok(Err(status)) => End::Status(status),
            Err(_) => {
                tally.violation("a watch that does not start", || {
                    format!("{:?} in {START:?}", spec.request)
                });
                End::Moved
            }
        };
        match end {
            End::Goal => return sessions,
            End::Moved => {}
            End::Silence => tally.violation("a silent stream", || {
                format!("{:?} for {SILENCE:?}", spec.request)
            }),
            End::Status(status) => {
                tally.answer("watch", status.code());
                let (code, reason) = (status.code(), reason(&status));
                if reason == "REVISION_COMPACTED" {
                    tally.add(TOO_LATE, 1);
                    request.start = Some(snapshot());
                } else if !matches!(code, Code::Unavailable | Code::ResourceExhausted) {
                    unexpected(&tally, "watch", &status);
                }
                // The token will never be valid again.
                if reason == "FEED_RESET" {
                    return sessions;
                }
            }
        }
        if spec.moves_after.is_some() {
            replicas.swap(0, 1);
        }
    }
    tally.violation("a watcher that does not catch up", || {
        format!("{:?}", spec.request)
    });
    sessions
}

/// How a stream ended.
enum End {
    /// The goal was reached.
    Goal,
    Moved,
    Silence,
    Status(Status),
}

/// Follows one stream to its end.
async fn follow(
    watcher: &mut Watcher,
    session: &mut Session,
    spec: &WatchSpec,
    goal: &watch::Receiver<Goal>,
    tally: &Tally,
) -> End {
    loop {
        let message = match timeout(SILENCE, watcher.next()).await {
            Ok(Ok(message)) => message,
            Ok(Err(status)) => return End::Status(status),
            Err(_) => return End::Silence,
        };
        if let Message::EventBatch(batch) = &message {
            tally.add("events seen by watchers", batch.events.len() as u64);
        }
        let reached = match &message {
            Message::Checkpoint(at) => at.revision,
            _ => 0,
        };
        session.seen.push(message);
        let is_goal = match *goal.borrow() {
            Goal::Revision(goal) => reached >= goal,
            Goal::GiveUp => return End::Moved,
            Goal::None => false,
        };
        if is_goal {
            return End::Goal;
        }
        let moves = spec
            .moves_after
            .is_some_and(|after| session.seen.len() >= after);
        if moves && !watcher.token.is_empty() {
            return End::Moved;
        }
    }
}
