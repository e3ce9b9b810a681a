//! Many writers, many watchers, two replicas, kills, purges, reconnects and slow
//! readers: afterwards what every watcher saw is held against the change log.
//!
//! Runs for 20 seconds, or as long as `VOICECALL_HISTORY_SECONDS` says.

use std::{
    env,
    sync::{Arc, Mutex},
    time::Duration,
};

use prost_types::FieldMask;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tonic::Status;
use voicecall::{
    api::proto::{
        self, VoiceCall, VoiceCallFilter, VoiceCallStatus, WatchVoiceCallsRequest,
        watch_voice_calls_request::Start, watch_voice_calls_response::Message,
    },
    domain::{self, Change, Filter, Identifier, Uuid},
    store::{Connector, Position, Store},
};

use crate::support::{
    Client,
    history::{FinalLog, Session, revision_of, validate},
    inbound,
    postgres::Cluster,
    server::{Process, client, settings},
    watcher::{Watcher, from, live, snapshot},
};

const WRITERS: u64 = 6;
const CALLS: u128 = 300;
const STAFF: u32 = 4;
/// Events of a batch that are broken to see it found; a call that was purged later
/// has events that may be missing.
const TRIES: usize = 20;

/// Where the replicas listen; a killed one comes back elsewhere.
type Endpoints = Arc<Mutex<Vec<String>>>;

fn any_client(endpoints: &Endpoints, random: &mut StdRng) -> Client {
    let endpoints = endpoints.lock().expect("no panic");
    client(&endpoints[random.random_range(0..endpoints.len())])
}

fn uid(number: u128) -> String {
    Uuid::from_u128(number).to_string()
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
    /// Messages after which it drops its stream and resumes elsewhere.
    drops_after: Option<usize>,
    /// How long it takes over each message.
    dawdles: Duration,
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
                uids: (1..=3).map(Uuid::from_u128).collect(),
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
        for start in [snapshot(), live(), Start::AfterRevision(0)] {
            for (drops_after, dawdles) in [
                (None, Duration::ZERO),
                (Some(7), Duration::ZERO),
                (None, Duration::from_millis(30)),
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
    goal: Arc<Mutex<Option<i64>>>,
    seed: u64,
) -> Vec<Session> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut sessions = Vec::new();
    let mut request = habit.request.clone();
    loop {
        let mut session = Session {
            resumed_from: match &request.start {
                Some(Start::AfterRevision(revision)) => Some(*revision),
                Some(Start::ResumeToken(token)) => Some(revision_of(token)),
                _ => None,
            },
            seen: Vec::new(),
        };
        let mut client = any_client(&endpoints, &mut random);
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
            session.seen.push(message);
            let drops = habit
                .drops_after
                .is_some_and(|after| session.seen.len() >= after);
            // Once all is written, who dawdles would never come to an end.
            if done || (drops && !watcher.token.is_empty()) {
                break;
            }
            if goal.is_none() {
                sleep(habit.dawdles).await;
            }
        }
        if !watcher.token.is_empty() {
            request.start = Some(Start::ResumeToken(watcher.token));
            sessions.push(session);
        }
        if done {
            return sessions;
        }
    }
}

async fn final_log(database_url: &str) -> Vec<Change> {
    let connector = Connector::new(database_url).expect("valid");
    let (store, _following, tasks) = Store::new(connector, settings().store);
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
            ("VOICECALL_FEED_MEMORY", "200000"),
        ])
    };
    let mut replicas = [start(), start()];
    let addresses = replicas
        .iter()
        .map(|replica| replica.endpoint.clone())
        .collect();
    let endpoints: Endpoints = Arc::new(Mutex::new(addresses));
    let goal = Arc::new(Mutex::new(None));
    let end = Instant::now() + duration;

    let mut watchers = JoinSet::new();
    for (place, habit) in habits().into_iter().enumerate() {
        let (endpoints, goal) = (Arc::clone(&endpoints), Arc::clone(&goal));
        watchers.spawn(async move {
            let filter = habit.filter.clone();
            (filter, watch(habit, endpoints, goal, place as u64).await)
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
    for message in &mut lying.seen {
        if let Message::Checkpoint(checkpoint) = message
            && let Some(time) = &mut checkpoint.read_time
        {
            time.seconds += 3600;
        }
    }
    let lies = validate(log, filter, &[lying]).is_err();
    let is_last = session
        .seen
        .iter()
        .all(|message| !matches!(message, Message::Checkpoint(at) if at.revision < log.head()));
    assert!(lies || is_last, "a checkpoint that lies is not found");
}
