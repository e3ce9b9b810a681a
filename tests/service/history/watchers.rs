//! What each watcher requests, and how it reads: fast or slowly, to the end or with
//! dropped streams that it resumes elsewhere.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::sleep;
use voicecall::{
    domain::{self, Filter, Identifier, Uuid},
    proto::{
        self, VoiceCallEventType, VoiceCallFilter, VoiceCallStatus, WatchVoiceCallsRequest,
        watch_voice_calls_request::Start, watch_voice_calls_response::Message,
    },
};

use super::{CALLS_APART, Endpoints, Purged, any_endpoint, uid};
use crate::support::{
    history::{Session, revision_of},
    server::{client, narrow_client},
    watcher::{Watcher, change, from, live, snapshot},
};

/// The most revisions by which a watcher that resumes earlier goes back.
const REWIND: i64 = 100;
/// Messages after which a slow watcher pauses for `NAP`.
const NAP_AFTER: usize = 20;
const NAP: Duration = Duration::from_secs(2);

/// What one watcher requests, and how it reads.
#[derive(Clone)]
pub(super) struct Habit {
    request: WatchVoiceCallsRequest,
    pub(super) filter: Filter,
    /// Messages after which it drops its stream and resumes elsewhere.
    drops_after: Option<usize>,
    goes_on: GoesOn,
    /// Its pause after each message; unless zero, it also naps now and then.
    dawdles: Duration,
}

/// Where a watcher that has dropped its stream resumes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum GoesOn {
    /// Where it was.
    There,
    /// Somewhat earlier.
    Earlier,
    /// With a new snapshot.
    Anew,
}

fn filters() -> Vec<(VoiceCallFilter, Filter)> {
    let staff = |name: &str| Identifier::new(name.to_owned()).expect("good");
    vec![
        (VoiceCallFilter::default(), Filter::default()),
        (
            VoiceCallFilter {
                show_deleted: true,
                ..Default::default()
            },
            Filter {
                show_deleted: true,
                ..Filter::default()
            },
        ),
        (
            VoiceCallFilter {
                staff_uids: vec!["staff-1".into()],
                ..Default::default()
            },
            Filter {
                staff_uids: vec![staff("staff-1")],
                ..Filter::default()
            },
        ),
        (
            VoiceCallFilter {
                uids: vec![uid(1), uid(2), uid(3)],
                ..Default::default()
            },
            Filter {
                uids: (1..=3)
                    .map(|number| Uuid::from_u128(number * CALLS_APART))
                    .collect(),
                ..Filter::default()
            },
        ),
        (
            VoiceCallFilter {
                statuses: vec![VoiceCallStatus::Missed.into()],
                handled: Some(false),
                ..Default::default()
            },
            Filter {
                statuses: vec![domain::Status::Missed],
                handled: Some(false),
                ..Filter::default()
            },
        ),
    ]
}

pub(super) fn habits() -> Vec<Habit> {
    let mut habits = Vec::new();
    for (wire, filter) in filters() {
        for (start, earlier) in [
            (snapshot(), GoesOn::Anew),
            (live(), GoesOn::There),
            (Start::AfterRevision(0), GoesOn::Earlier),
        ] {
            for (drops_after, goes_on, dawdles) in [
                (None, GoesOn::There, Duration::ZERO),
                (Some(7), GoesOn::There, Duration::ZERO),
                (Some(20), earlier, Duration::ZERO),
                (None, GoesOn::There, Duration::from_millis(30)),
            ] {
                let request = WatchVoiceCallsRequest {
                    filter: Some(wire.clone()),
                    include_previous: drops_after.is_some(),
                    ..from(start.clone())
                };
                habits.push(Habit {
                    request,
                    filter: filter.clone(),
                    drops_after,
                    goes_on,
                    dawdles,
                });
            }
        }
    }
    habits
}

/// Watches until everything up to `goal` (once it is known) has been seen.
pub(super) async fn watch(
    habit: Habit,
    endpoints: Endpoints,
    purged: Purged,
    goal: Arc<Mutex<Option<i64>>>,
    seed: u64,
) -> Vec<Session> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut sessions = Vec::new();
    let mut request = habit.request.clone();
    loop {
        let endpoint = any_endpoint(&endpoints, &mut random);
        let reported = |purged: &mut HashMap<String, HashSet<String>>| {
            purged.entry(endpoint.clone()).or_default().clone()
        };
        let mut session = Session {
            resumed_from: match &request.start {
                Some(Start::AfterRevision(revision)) => Some(*revision),
                Some(Start::ResumeToken(token)) => Some(revision_of(token)),
                _ => None,
            },
            with_previous: request.include_previous,
            purged_before: reported(&mut purged.lock().expect("no panic")),
            seen: Vec::new(),
        };
        let mut client = if habit.dawdles.is_zero() {
            client(&endpoint)
        } else {
            narrow_client(&endpoint)
        };
        let Ok(mut watcher) = Watcher::start(&mut client, request.clone()).await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut done = false;
        while let Ok(message) = watcher.next().await {
            let goal = *goal.lock().expect("no panic");
            done = goal.is_some_and(
                |goal| matches!(&message, Message::Checkpoint(at) if at.revision >= goal),
            );
            if let Message::EventBatch(batch) = &message {
                let is_purge =
                    |event: &&proto::VoiceCallEvent| event.r#type() == VoiceCallEventType::Purged;
                let uids = batch.events.iter().filter(is_purge);
                let uids = uids.map(|event| change(event).uid.clone());
                let mut purged = purged.lock().expect("no panic");
                purged.entry(endpoint.clone()).or_default().extend(uids);
            }
            session.seen.push(slim(message));
            let drops = habit
                .drops_after
                .is_some_and(|after| session.seen.len() >= after);
            if done || (drops && !watcher.token.is_empty()) {
                break;
            }
            // Once the writers have ended, slow watchers read at full speed, to finish in time.
            if goal.is_none() && !habit.dawdles.is_zero() {
                let naps = session.seen.len().is_multiple_of(NAP_AFTER);
                sleep(if naps { NAP } else { habit.dawdles }).await;
            }
        }
        if !watcher.token.is_empty() {
            let goal = *goal.lock().expect("no panic");
            request.start = match habit.goes_on {
                GoesOn::Earlier if goal.is_none() => {
                    let back = random.random_range(0..REWIND);
                    let revision = revision_of(&watcher.token) - back;
                    Some(Start::AfterRevision(revision.max(0)))
                }
                GoesOn::Anew if goal.is_none() => habit.request.start.clone(),
                _ => Some(Start::ResumeToken(watcher.token)),
            };
            sessions.push(session);
        }
        if done {
            return sessions;
        }
    }
}

/// The message without what makes it large.
fn slim(mut message: Message) -> Message {
    match &mut message {
        Message::SnapshotChunk(chunk) => {
            for call in &mut chunk.voice_calls {
                call.call_summary = None;
            }
        }
        Message::EventBatch(batch) => {
            for change in batch
                .events
                .iter_mut()
                .filter_map(|one| one.change.as_mut())
            {
                let calls = [&mut change.voice_call, &mut change.previous];
                for call in calls.into_iter().flatten() {
                    call.call_summary = None;
                }
            }
        }
        Message::SnapshotComplete(_) | Message::Checkpoint(_) => {}
    }
    message
}
