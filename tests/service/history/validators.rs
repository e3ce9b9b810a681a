//! Validators that find nothing prove nothing: what was seen is broken in every way, and
//! they must find each.

use prost_types::Timestamp;
use voicecall::{
    domain::Filter,
    proto::{self, watch_voice_calls_response::Message},
};

use crate::support::history::{FinalLog, Session, validate};

/// Events of a batch that are broken in turn until one is found: the events of a call that
/// was purged later may be missing.
const TRIES: usize = 20;

/// Breaks what was seen in every way; each must be found.
pub(super) fn validators_find_what_is_wrong(log: &FinalLog, all: &[(Filter, Vec<Session>)]) {
    let is_good = |session: &&Session| {
        let batches = session.seen.iter().filter(
            |message| matches!(message, Message::EventBatch(batch) if batch.events.len() > 2),
        );
        session.resumed_from.is_some() && batches.count() > 2
    };
    let (filter, session) = all
        .iter()
        .filter(|(filter, _)| filter.show_deleted)
        .find_map(|(filter, sessions)| Some((filter, sessions.iter().find(is_good)?)))
        .expect("there is a stream with several batches");
    // Breaks one event after the other, until one that is still in the log is found.
    let broken = |what: &str, change: &dyn Fn(&mut Vec<proto::VoiceCallEvent>, usize)| {
        for (place, message) in session.seen.iter().enumerate() {
            let Message::EventBatch(batch) = message else {
                continue;
            };
            for event in 0..batch.events.len().saturating_sub(1).min(TRIES) {
                let mut session = session.clone();
                if let Message::EventBatch(batch) = &mut session.seen[place] {
                    change(&mut batch.events, event);
                }
                if validate(log, filter, &[session]).is_err() {
                    return;
                }
            }
        }
        panic!("{what} is not found");
    };
    broken("a missing event", &|events, at| drop(events.remove(at)));
    broken("a repeated event", &|events, at| {
        events.insert(at, events[at].clone())
    });
    broken("a wrong order", &|events, at| events.swap(at, at + 1));
    broken("another type", &|events, at| {
        events[at].r#type = proto::VoiceCallEventType::Exited.into();
    });
    broken("another state", &|events, at| {
        let change = events[at].change.as_mut().expect("set");
        change
            .voice_call
            .iter_mut()
            .for_each(|call| call.revision += 1);
    });
    let mut late = session.clone();
    let place = late
        .seen
        .iter()
        .position(|message| matches!(message, Message::EventBatch(_)));
    late.seen.remove(place.expect("there is one"));
    assert!(
        validate(log, filter, &[late]).is_err(),
        "a lost batch is not found"
    );
    // A snapshot that broke off is not judged, so one of them all is enough.
    let mut snapshots = all.iter().flat_map(|(filter, sessions)| {
        let sessions = sessions.iter().filter(|session| {
            session.seen.iter().any(
                |message| matches!(message, Message::SnapshotChunk(chunk) if chunk.voice_calls.len() > 1),
            )
        });
        sessions.map(move |session| (filter, session.clone()))
    });
    let is_found = |(filter, mut session): (_, Session)| {
        (0..session.seen.len()).any(|place| {
            let Message::SnapshotChunk(chunk) = &mut session.seen[place] else {
                return false;
            };
            let lost = chunk.voice_calls.pop();
            let is_found = validate(log, filter, &[session.clone()]).is_err();
            if let Message::SnapshotChunk(chunk) = &mut session.seen[place] {
                chunk.voice_calls.extend(lost);
            }
            is_found
        })
    };
    let is_empty = snapshots.clone().next().is_none();
    assert!(
        is_empty || snapshots.any(is_found),
        "a call that is missing in a snapshot is not found"
    );
    let mut lying = session.clone();
    let mut lies = 0;
    for message in &mut lying.seen {
        if let Message::Checkpoint(checkpoint) = message
            && let Some(oldest) = log.oldest_after(checkpoint.revision)
        {
            let early = oldest + 1;
            checkpoint.read_time = Some(Timestamp {
                seconds: early.div_euclid(1_000_000),
                nanos: i32::try_from(early.rem_euclid(1_000_000) * 1000).expect("it fits"),
            });
            lies += 1;
        }
    }
    let found = validate(log, filter, &[lying]).is_err();
    assert!(found || lies == 0, "a checkpoint that lies is not found");
}
