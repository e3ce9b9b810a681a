//! Many writers, many watchers, two replicas, kills, purges, reconnects, snapshots
//! and slow readers: afterwards what every watcher saw is held against the change
//! log.
//!
//! Runs for 20 seconds, or as long as `VOICECALL_HISTORY_SECONDS` says.

use std::{
    collections::{HashMap, HashSet},
    env,
    sync::{Arc, Mutex},
    time::Duration,
};

use prost_types::{FieldMask, Timestamp};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tonic::Status;
use voicecall::{
    domain::{self, Change, Filter, Identifier, Uuid},
    proto::{
        self, VoiceCall, VoiceCallEventType, VoiceCallFilter, VoiceCallStatus,
        WatchVoiceCallsRequest, watch_voice_calls_request::Start,
        watch_voice_calls_response::Message,
    },
    store::{Connector, Position, Store, Supervisor},
};

use crate::support::{
    Client,
    history::{FinalLog, Session, revision_of, validate},
    inbound,
    postgres::Cluster,
    server::{Process, client, narrow_client, settings},
    watcher::{Watcher, change, from, live, snapshot},
    writes::batch_of,
};

const WRITERS: u64 = 6;
/// Calls that are written, with so many beside each that are not: a snapshot has
/// many pages, and changes behind and before the one that is read.
const CALLS: u128 = 300;
const CALLS_APART: u128 = 8;
/// What the written calls carry, so that who is slow overflows what waits for it.
const SUMMARY_LEN: usize = 1000;
const STAFF: u32 = 4;
/// How far back a watcher goes that goes back.
const REWIND: i64 = 100;
/// Messages after which a slow watcher does not read for a while.
const NAP_AFTER: usize = 20;
const NAP: Duration = Duration::from_secs(2);
/// Events of a batch that are broken to see it found; a call that was purged later
/// has events that may be missing.
const TRIES: usize = 20;

/// Where the replicas listen; a killed one comes back elsewhere.
type Endpoints = Arc<Mutex<Vec<String>>>;

fn any_endpoint(endpoints: &Endpoints, random: &mut StdRng) -> String {
    let endpoints = endpoints.lock().expect("no panic");
    endpoints[random.random_range(0..endpoints.len())].clone()
}

fn any_client(endpoints: &Endpoints, random: &mut StdRng) -> Client {
    client(&any_endpoint(endpoints, random))
}

/// The calls that each replica has told to be purged.
type Purged = Arc<Mutex<HashMap<String, HashSet<String>>>>;

/// The uid of a call that is written.
fn uid(number: u128) -> String {
    Uuid::from_u128(number * CALLS_APART).to_string()
}

/// Creates all calls, those that are written among the others.
async fn seed(client: &mut Client) {
    let calls: Vec<_> = (0..CALLS * CALLS_APART)
        .map(|number| VoiceCall {
            uid: Uuid::from_u128(number).to_string(),
            call_summary: number
                .is_multiple_of(CALLS_APART)
                .then(|| "x".repeat(SUMMARY_LEN)),
            ..inbound()
        })
        .collect();
    for calls in calls.chunks(500) {
        let created = batch_of(calls.to_vec()).send(client).await;
        created.expect("they are new");
    }
}

/// Writes whatever, wherever, until the time is over. Refusals are part of it.
async fn write(seed: u64, endpoints: Endpoints, end: Instant) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut client = any_client(&endpoints, &mut random);
    while Instant::now() < end {
        if random.random_bool(0.02) {
            client = any_client(&endpoints, &mut random);
        }
        let failed = write_one(&mut client, &mut random)
            .await
            .is_err_and(|status| {
                matches!(
                    status.code(),
                    tonic::Code::Unavailable | tonic::Code::Unknown
                )
            });
        if failed {
            client = any_client(&endpoints, &mut random);
        }
    }
}

async fn write_one(client: &mut Client, random: &mut StdRng) -> Result<(), Status> {
    let statuses = [VoiceCallStatus::IncomingCall, VoiceCallStatus::Missed];
    let voice_call = VoiceCall {
        uid: uid(random.random_range(0..CALLS)),
        status: statuses[random.random_range(0..2)].into(),
        staff_uid: Some(format!("staff-{}", random.random_range(0..STAFF))),
        duration: Some(random.random_range(0..100)),
        ..inbound()
    };
    let uid = voice_call.uid.clone();
    match random.random_range(0..100) {
        0..60 => {
            let request = proto::UpdateVoiceCallRequest {
                voice_call: Some(voice_call),
                update_mask: Some(FieldMask {
                    paths: vec!["staff_uid".into(), "duration".into()],
                }),
                allow_missing: true,
                ..Default::default()
            };
            client.update_voice_call(request).await.map(drop)
        }
        60..70 => {
            let batch = vec![
                VoiceCall {
                    uid: String::new(),
                    ..voice_call
                };
                5
            ];
            let request = proto::BatchCreateVoiceCallsRequest {
                voice_calls: batch,
                ..Default::default()
            };
            client.batch_create_voice_calls(request).await.map(drop)
        }
        70..80 => {
            let request = proto::HandleVoiceCallRequest {
                uid,
                handled_by_staff_uid: "eve".into(),
                ..Default::default()
            };
            client.handle_voice_call(request).await.map(drop)
        }
        80..90 => {
            let request = proto::DeleteVoiceCallRequest {
                uid,
                ..Default::default()
            };
            client.delete_voice_call(request).await.map(drop)
        }
        90..99 => {
            let request = proto::UndeleteVoiceCallRequest {
                uid,
                ..Default::default()
            };
            client.undelete_voice_call(request).await.map(drop)
        }
        _ => {
            // So that its last change is still in memory.
            let update = proto::UpdateVoiceCallRequest {
                voice_call: Some(voice_call),
                ..Default::default()
            };
            client.update_voice_call(update).await?;
            let request = proto::PurgeVoiceCallRequest {
                uid,
                ..Default::default()
            };
            client.purge_voice_call(request).await.map(drop)
        }
    }
}

/// What one watcher wants, and how it behaves.
#[derive(Clone)]
struct Habit {
    request: WatchVoiceCallsRequest,
    filter: Filter,
    /// Messages after which it drops its stream and goes on elsewhere.
    drops_after: Option<usize>,
    goes_on: GoesOn,
    /// How long it takes over each message; then it naps now and then too.
    dawdles: Duration,
}

/// Where a watcher goes on that has dropped its stream.
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

fn habits() -> Vec<Habit> {
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
async fn watch(
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
        let told = |purged: &mut HashMap<String, HashSet<String>>| {
            purged.entry(endpoint.clone()).or_default().clone()
        };
        let mut session = Session {
            resumed_from: match &request.start {
                Some(Start::AfterRevision(revision)) => Some(*revision),
                Some(Start::ResumeToken(token)) => Some(revision_of(token)),
                _ => None,
            },
            with_previous: request.include_previous,
            purged_before: told(&mut purged.lock().expect("no panic")),
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
            // Once all is written, who dawdles would never come to an end.
            if done || (drops && !watcher.token.is_empty()) {
                break;
            }
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

/// All changes, in order.
pub(crate) async fn final_log(database_url: &str) -> Vec<Change> {
    let connector = Connector::new(database_url).expect("valid");
    let (store, _following, tasks) = Store::new(
        connector,
        settings().store,
        &[tokio::runtime::Handle::current()],
        &Supervisor::default(),
    );
    tasks.open(false).await.expect("it is there");
    let mut changes: Vec<Change> = Vec::new();
    let mut position = Position::default();
    loop {
        let deadline = Instant::now() + Duration::from_secs(30);
        let page = store
            .log()
            .after(position, 1000, deadline)
            .await
            .expect("whole");
        let Some(last) = page.entries.last() else {
            return changes;
        };
        position = Position {
            revision: last.change.revision,
            stamp: last.stamp,
        };
        changes.extend(page.entries.into_iter().map(|entry| entry.change));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_see_every_change_once_in_order_through_kills_and_reconnects() {
    let seconds = env::var("VOICECALL_HISTORY_SECONDS").ok();
    let seconds = seconds.map_or(20, |text| text.parse().expect("a number of seconds"));
    let duration = Duration::from_secs(seconds);
    let database_url = Cluster::shared().await.database().await;
    let start = || {
        // Little memory, so that who is slow must read the log.
        Process::start(&[
            ("DATABASE_URL", &database_url),
            ("VOICECALL_FEED_MEMORY", "500000"),
        ])
    };
    let mut replicas = [start(), start()];
    let addresses = replicas
        .iter()
        .map(|replica| replica.endpoint.clone())
        .collect();
    let endpoints: Endpoints = Arc::new(Mutex::new(addresses));
    let (purged, goal) = (Purged::default(), Arc::new(Mutex::new(None)));
    seed(&mut replicas[0].client()).await;
    let end = Instant::now() + duration;

    let mut watchers = JoinSet::new();
    for (place, habit) in habits().into_iter().enumerate() {
        let (endpoints, purged, goal) = (
            Arc::clone(&endpoints),
            Arc::clone(&purged),
            Arc::clone(&goal),
        );
        watchers.spawn(async move {
            let filter = habit.filter.clone();
            let sessions = watch(habit, endpoints, purged, goal, place as u64).await;
            (filter, sessions)
        });
    }
    let mut writers = JoinSet::new();
    for seed in 0..WRITERS {
        writers.spawn(write(seed, Arc::clone(&endpoints), end));
    }
    for killed in [1, 0] {
        sleep(duration / 3).await;
        replicas[killed] = start();
        endpoints.lock().expect("no panic")[killed] = replicas[killed].endpoint.clone();
    }
    while writers.join_next().await.is_some() {}
    let log = FinalLog::new(final_log(&database_url).await);
    *goal.lock().expect("no panic") = Some(log.head());
    let mut all = Vec::new();
    let ended = timeout(Duration::from_secs(60), async {
        while let Some(watcher) = watchers.join_next().await {
            all.push(watcher.expect("no panic"));
        }
    });
    ended.await.expect("every watcher comes to the end");
    let (mut seen, mut sessions) = (0, 0);
    for (filter, watched) in &all {
        seen += validate(&log, filter, watched).unwrap_or_else(|why| panic!("{why}; {filter:?}"));
        sessions += watched.len();
    }
    println!(
        "{} changes, {} watchers, {sessions} streams, {seen} events",
        log.head(),
        all.len()
    );
    assert!(
        log.head() > 500 && seen > 5000,
        "too little happened to prove anything"
    );
    validators_find_what_is_wrong(&log, &all);
}

/// Breaks what was seen in every way, and wants each found.
fn validators_find_what_is_wrong(log: &FinalLog, all: &[(Filter, Vec<Session>)]) {
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
    // An event that is still in the log, so that it must be seen.
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
    let snapshot = all.iter().find_map(|(filter, sessions)| {
        let session = sessions.iter().find(|session| {
            session.seen.iter().any(
                |message| matches!(message, Message::SnapshotChunk(chunk) if chunk.voice_calls.len() > 1),
            )
        })?;
        Some((filter, session.clone()))
    });
    if let Some((filter, mut session)) = snapshot {
        let mut found = 0;
        for place in 0..session.seen.len() {
            if let Message::SnapshotChunk(chunk) = &mut session.seen[place] {
                let lost = chunk.voice_calls.pop();
                found += usize::from(validate(log, filter, &[session.clone()]).is_err());
                if let Message::SnapshotChunk(chunk) = &mut session.seen[place] {
                    chunk.voice_calls.extend(lost);
                }
            }
        }
        assert!(
            found > 0,
            "a call that is missing in a snapshot is not found"
        );
    }
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
