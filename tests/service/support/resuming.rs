//! Watchers that go on by their token whenever their stream ends, and keep what
//! they saw for the validators of `history`.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{interval, timeout},
};
use tonic::{Code, Status};
use voicecall::{
    api::proto::{
        VoiceCallFilter, VoiceCallStatus, WatchVoiceCallsRequest, watch_voice_calls_request::Start,
        watch_voice_calls_response::Message,
    },
    domain::{self, Filter},
};

use super::{
    history::{Session, revision_of},
    load::{hot_uid, reason, unexpected},
    server::client,
    tally::Tally,
    watcher::{Watcher, from, live, snapshot},
};

/// A stream that says nothing for so long is broken: they have checkpoints every
/// second at most.
const SILENCE: Duration = Duration::from_secs(10);

/// What the watchers wait for in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// They go on.
    None,
    /// A checkpoint at this revision.
    Revision(i64),
    /// Nothing any more.
    GiveUp,
}

/// What one watcher wants.
#[derive(Clone)]
pub(crate) struct Habit {
    request: WatchVoiceCallsRequest,
    pub(crate) filter: Filter,
    /// Messages after which it goes on in another stream, on the other replica.
    moves_after: Option<usize>,
}

/// Filters and starts of all kinds.
pub(crate) fn habits() -> Vec<Habit> {
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
    let habit = |(start, (wire, filter)): (Start, (VoiceCallFilter, Filter)),
                 moves_after: Option<usize>| Habit {
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
        .map(|one| habit(one, None))
        .chain(moving.map(|one| habit(one, Some(20))))
        .collect()
}

/// Watches on a replica, resuming wherever its streams end, until the goal.
pub(crate) async fn watch(
    habit: Habit,
    mut replicas: [String; 2],
    goal: watch::Receiver<Goal>,
    tally: Arc<Tally>,
) -> Vec<Session> {
    let mut sessions = Vec::new();
    let mut request = habit.request.clone();
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
        let start = timeout(SILENCE, Watcher::start(&mut client, request.clone()));
        let end = match start.await {
            Ok(Ok(mut watcher)) => {
                let end = follow(&mut watcher, &mut session, &habit, &goal, &tally).await;
                // Without a token nothing has been handed out yet: it begins again.
                if !watcher.token.is_empty() {
                    request.start = Some(Start::ResumeToken(watcher.token));
                    sessions.push(session);
                }
                end
            }
            Ok(Err(status)) => End::Status(status),
            Err(_) => End::Silence,
        };
        match end {
            End::Goal => return sessions,
            End::Moved => {}
            End::Silence => tally.violation("a stream that says nothing", || {
                format!("{:?} for {SILENCE:?}", habit.request)
            }),
            End::Status(status) => {
                tally.answer("watch", status.code());
                let (code, reason) = (status.code(), reason(&status));
                if !matches!(code, Code::Unavailable | Code::ResourceExhausted) {
                    unexpected(&tally, "watch", &status);
                }
                // It could never go on.
                if reason == "FEED_RESET" {
                    return sessions;
                }
            }
        }
        if habit.moves_after.is_some() {
            replicas.swap(0, 1);
        }
    }
    tally.violation("a watcher that does not come to the end", || {
        format!("{:?}", habit.request)
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
    habit: &Habit,
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
        let moves = habit
            .moves_after
            .is_some_and(|after| session.seen.len() >= after);
        if moves && !watcher.token.is_empty() {
            return End::Moved;
        }
    }
}
