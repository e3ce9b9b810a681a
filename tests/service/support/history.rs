//! Compares what watchers saw with the final change log: validators like those of etcd's
//! robustness tests. They know nothing of how the feed works; other tests check what a filter
//! matches.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
};

use voicecall::{
    api::tokens::resume_token::ResumeToken,
    domain::{Call, Change, ChangeKind, Filter, Identifier, Timestamp, Uuid},
    proto::{
        VoiceCall, VoiceCallChange, VoiceCallEvent, VoiceCallEventType as Type,
        watch_voice_calls_response::Message,
    },
};

use super::{micros, watcher::change};

/// One stream, as it was seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Session {
    /// The revision it resumed from; `None`: it began with a snapshot, or live.
    pub(crate) resumed_from: Option<i64>,
    /// Whether it asked for the states before changes.
    pub(crate) with_previous: bool,
    /// The uids of calls whose purge its replica had reported before the stream began.
    pub(crate) purged_before: HashSet<String>,
    pub(crate) seen: Vec<Message>,
}

/// The final change log.
pub(crate) struct FinalLog {
    changes: Vec<Change>,
    /// State before each change, by folding.
    before: Vec<Option<Call>>,
    purged: HashSet<Uuid>,
    /// The places of the changes of each call.
    places: HashMap<Uuid, Vec<usize>>,
    /// The oldest time of each change and those after it.
    oldest_from: Vec<Timestamp>,
}

/// What a view must show of one change.
struct Expected {
    uid: Uuid,
    event: Type,
    /// The call was purged later: then the change may be blank.
    may_be_missing: bool,
}

impl FinalLog {
    /// The log, whose changes are in order from 1 on.
    pub(crate) fn new(changes: Vec<Change>) -> Self {
        let mut states: HashMap<Uuid, Call> = HashMap::new();
        let mut before = Vec::with_capacity(changes.len());
        let mut purged = HashSet::new();
        let mut places: HashMap<Uuid, Vec<usize>> = HashMap::new();
        for (place, change) in changes.iter().enumerate() {
            assert_eq!(
                usize::try_from(change.revision),
                Ok(place + 1),
                "a gap in the log"
            );
            places.entry(change.uid).or_default().push(place);
            before.push(states.remove(&change.uid));
            if let Some(after) = &change.after {
                states.insert(change.uid, (**after).clone());
            }
            if change.kind == Some(ChangeKind::Purged) {
                purged.insert(change.uid);
            }
        }
        let mut oldest_from: Vec<Timestamp> = changes.iter().map(|one| one.changed_at).collect();
        for place in (1..oldest_from.len()).rev() {
            oldest_from[place - 1] = oldest_from[place - 1].min(oldest_from[place]);
        }
        Self {
            changes,
            before,
            purged,
            places,
            oldest_from,
        }
    }

    /// The oldest time of the changes after this revision, in microseconds since 1970.
    pub(crate) fn oldest_after(&self, revision: i64) -> Option<i64> {
        let place = usize::try_from(revision).expect("it fits");
        Some(self.oldest_from.get(place)?.micros())
    }

    pub(crate) fn head(&self) -> i64 {
        i64::try_from(self.changes.len()).expect("it fits")
    }

    /// The places of the changes that may concern a view, in order.
    fn places(&self, filter: &Filter) -> Vec<usize> {
        if filter.uids.is_empty() {
            return (0..self.changes.len()).collect();
        }
        let of_calls = filter.uids.iter().filter_map(|uid| self.places.get(uid));
        let mut places: Vec<usize> = of_calls.flatten().copied().collect();
        places.sort_unstable();
        places
    }

    /// The events of a view, by revision.
    fn events(&self, filter: &Filter) -> BTreeMap<i64, Expected> {
        let mut events = BTreeMap::new();
        for place in self.places(filter) {
            let (change, before) = (&self.changes[place], &self.before[place]);
            let event = match &change.after {
                None if change.kind == Some(ChangeKind::Purged) => Some(Type::Purged),
                // Blank: what it was cannot be told.
                None => Some(Type::Unspecified),
                Some(after) => {
                    let was = before.as_ref().is_some_and(|before| filter.matches(before));
                    match (was, filter.matches(after), after.deleted_at.is_some()) {
                        (false, true, _) => Some(Type::Entered),
                        (true, true, _) => Some(Type::Updated),
                        (true, false, true) => Some(Type::Deleted),
                        (true, false, false) => Some(Type::Exited),
                        (false, false, _) => None,
                    }
                }
            };
            if let Some(event) = event {
                let expected = Expected {
                    uid: change.uid,
                    event,
                    may_be_missing: event == Type::Unspecified,
                };
                events.insert(change.revision, expected);
            }
        }
        events
    }

    /// The calls of a view at a revision; those that were purged later are left out.
    pub(crate) fn calls(&self, filter: &Filter, revision: i64) -> BTreeMap<Uuid, i64> {
        let mut calls = BTreeMap::new();
        let changes = self.places(filter).into_iter();
        let changes = changes.map(|place| &self.changes[place]);
        for change in changes.take_while(|change| change.revision <= revision) {
            match &change.after {
                Some(after) if filter.matches(after) => calls.insert(change.uid, change.revision),
                _ => calls.remove(&change.uid),
            };
        }
        calls.retain(|uid, _| !self.purged.contains(uid));
        calls
    }
}

/// Checks all streams of one watcher, in the order in which it opened them; returns the number
/// of its events.
pub(crate) fn validate(
    log: &FinalLog,
    filter: &Filter,
    sessions: &[Session],
) -> Result<usize, String> {
    let expected = log.events(filter);
    let mut seen = 0;
    for session in sessions {
        seen += validate_session(log, filter, &expected, session)?;
    }
    Ok(seen)
}

fn validate_session(
    log: &FinalLog,
    filter: &Filter,
    expected: &BTreeMap<i64, Expected>,
    session: &Session,
) -> Result<usize, String> {
    // Everything up to here has been delivered, or was not asked for.
    let mut covered = session.resumed_from;
    let mut snapshot: Vec<Listed> = Vec::new();
    let mut seen = 0;
    let mut read_time = i64::MIN;
    for message in &session.seen {
        match message {
            Message::SnapshotChunk(chunk) => {
                for call in &chunk.voice_calls {
                    check_purged(session, Some(call))?;
                }
                snapshot.extend(chunk.voice_calls.iter().map(Listed::from));
            }
            Message::SnapshotComplete(complete) => {
                check_snapshot(log, filter, &snapshot, complete.revision)?;
                covered = Some(complete.revision);
            }
            Message::EventBatch(batch) => {
                let from = covered.ok_or("events before the point they begin at")?;
                let to = revision_of(&batch.resume_token);
                for event in &batch.events {
                    check_purged(session, change(event).voice_call.as_ref())?;
                    check_previous(session, change(event))?;
                }
                check_events(log, expected, &batch.events, from, to)?;
                seen += batch.events.len();
                covered = Some(to);
            }
            Message::Checkpoint(checkpoint) => {
                let to = checkpoint.revision;
                if revision_of(&checkpoint.resume_token) != to || checkpoint.head_revision < to {
                    return Err(format!(
                        "a checkpoint that contradicts itself: {checkpoint:?}"
                    ));
                }
                if let Some(from) = covered {
                    check_events(log, expected, &[], from, to)?;
                }
                covered = Some(to);
                let Some(time) = checkpoint.read_time else {
                    if read_time == i64::MIN {
                        continue;
                    }
                    return Err("a checkpoint without a time after one with it".into());
                };
                let time = micros(Some(time));
                if time < read_time {
                    return Err("checkpoints whose time runs backwards".into());
                }
                read_time = time;
                check_read_time(log, to, time)?;
            }
        }
    }
    Ok(seen)
}

/// Checks that no stream that began after a purge shows the purged content.
fn check_purged(session: &Session, call: Option<&VoiceCall>) -> Result<(), String> {
    match call {
        Some(call) if session.purged_before.contains(&call.uid) => Err(format!(
            "call {} at revision {}, on a stream that began after its purge",
            call.uid, call.revision
        )),
        _ => Ok(()),
    }
}

/// Checks that exactly the streams that asked for the states before changes have them.
fn check_previous(session: &Session, change: &VoiceCallChange) -> Result<(), String> {
    let has_before = change.changed_fields.is_some();
    if change.previous.is_some() == (has_before && session.with_previous) {
        return Ok(());
    }
    Err(format!(
        "revision {} {} the state before",
        change.revision,
        if session.with_previous {
            "without"
        } else {
            "with"
        },
    ))
}

/// Ordered, unique, gapless, and each what it must be: the events are those of the
/// view after `from` up to `to`.
fn check_events(
    log: &FinalLog,
    expected: &BTreeMap<i64, Expected>,
    events: &[VoiceCallEvent],
    from: i64,
    to: i64,
) -> Result<(), String> {
    if to < from {
        return Err(format!("a point that goes back, from {from} to {to}"));
    }
    let mut events = events.iter().peekable();
    let mut last = from;
    for (revision, expected) in expected.range((Bound::Excluded(from), Bound::Included(to))) {
        let Some(event) = events.next_if(|event| change(event).revision == *revision) else {
            if expected.may_be_missing {
                continue;
            }
            let next = events.peek().map(|event| change(event).revision);
            return Err(format!(
                "revision {revision} is missing; {next:?} comes after {last}"
            ));
        };
        last = *revision;
        check_event(log, expected, event)?;
    }
    match events.next() {
        None => Ok(()),
        Some(event) => Err(format!(
            "revision {} is not to be seen, after {last} and up to {to}",
            change(event).revision
        )),
    }
}

fn check_event(log: &FinalLog, expected: &Expected, event: &VoiceCallEvent) -> Result<(), String> {
    let seen = change(event);
    let revision = seen.revision;
    if seen.uid != expected.uid.to_string() {
        return Err(format!("revision {revision} is of another call"));
    }
    if expected.may_be_missing {
        return Ok(());
    }
    if event.r#type() != expected.event {
        return Err(format!(
            "revision {revision} is {:?}, not {:?}",
            expected.event,
            event.r#type()
        ));
    }
    let place = usize::try_from(revision - 1).expect("it fits");
    let logged = &log.changes[place];
    if !is_same(seen.voice_call.as_ref(), logged.after.as_deref()) {
        return Err(format!("revision {revision} has another state"));
    }
    if micros(seen.changed_at) != logged.changed_at.micros() {
        return Err(format!("revision {revision} has another changed_at"));
    }
    let before = log.before[place].as_ref();
    if seen.previous.is_some() && !is_same(seen.previous.as_ref(), before) {
        return Err(format!("revision {revision} has another state before"));
    }
    if seen.transaction_end != logged.transaction_end {
        return Err(format!("revision {revision} with another transaction_end"));
    }
    Ok(())
}

/// Whether it is this state, by all that the history writes.
fn is_same(seen: Option<&VoiceCall>, logged: Option<&Call>) -> bool {
    let (Some(seen), Some(logged)) = (seen, logged) else {
        return seen.is_none() && logged.is_none();
    };
    let a = &logged.attributes;
    let micros = |time: Option<prost_types::Timestamp>| {
        time.map(|time| time.seconds * 1_000_000 + i64::from(time.nanos) / 1000)
    };
    let text = |text: &Option<Identifier>| text.as_ref().map(|text| text.as_str().to_owned());
    seen.revision == logged.revision
        && seen.staff_uid == text(&a.staff_uid)
        && seen.handled_by_staff_uid == text(&a.handled_by_staff_uid)
        && micros(seen.updated_at) == Some(logged.updated_at.micros())
        && micros(seen.deleted_at) == logged.deleted_at.map(Timestamp::micros)
}

/// What orders and identifies a call of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    /// In microseconds since 1970.
    created_at: i64,
    pub(crate) uid: Uuid,
    pub(crate) revision: i64,
}

impl From<&VoiceCall> for Listed {
    fn from(call: &VoiceCall) -> Self {
        Self {
            created_at: micros(call.created_at),
            uid: call.uid.parse().expect("a UUID"),
            revision: call.revision,
        }
    }
}

/// Checks calls that are said to be all of a view at a revision, in their order.
pub(crate) fn check_snapshot(
    log: &FinalLog,
    filter: &Filter,
    calls: &[Listed],
    revision: i64,
) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    let mut last = None;
    for call in calls {
        let uid = call.uid;
        let place = Some((call.created_at, uid));
        if place <= last {
            return Err(format!("call {uid} is twice or out of order in a snapshot"));
        }
        last = place;
        if !log.purged.contains(&uid) {
            seen.insert(uid, call.revision);
        }
    }
    let expected = log.calls(filter, revision);
    if seen == expected {
        return Ok(());
    }
    let missing = expected
        .iter()
        .filter(|(uid, at)| seen.get(uid) != Some(at))
        .count();
    Err(format!(
        "a snapshot at {revision} of {} calls instead of {}, {missing} missing or other",
        seen.len(),
        expected.len()
    ))
}

/// Checks that no change after the point has an earlier time.
fn check_read_time(log: &FinalLog, point: i64, read_time: i64) -> Result<(), String> {
    match log.oldest_after(point) {
        Some(oldest) if oldest < read_time => Err(format!(
            "a checkpoint at {point} whose read_time is {} microseconds after a later change",
            read_time - oldest
        )),
        _ => Ok(()),
    }
}

/// The revision that a token stands for.
pub(crate) fn revision_of(token: &str) -> i64 {
    ResumeToken::decode(token)
        .expect("the server's own")
        .position
        .revision
}
