//! Random writes by random callers. A narrowed one is refused what it may not do, and a writer who
//! is alone knows exactly what that is.

use prost_types::{FieldMask, Timestamp};
use rand::{
    Rng,
    rngs::StdRng,
    seq::{IndexedRandom, IteratorRandom},
};
use tonic::{Code, Status};
use voicecall::proto::{
    GetVoiceCallRequest, ImportConflictPolicy, UpdateVoiceCallRequest, VoiceCall,
};

use super::{
    World,
    callers::{Caller, NAMES, Narrowing},
    filters::{NUMBERS, any_duration},
};
use crate::support::{
    facts,
    import::import_as,
    request_id,
    writes::{Write, batch_of, create_of, delete_of, handle_of, purge_of, undelete_of},
};

/// The paths that an update may name.
const PATHS: [&str; 9] = [
    "staff_uid",
    "client_uid",
    "handled_by_staff_uid",
    "handled_at",
    "duration",
    "status",
    "from_number",
    "to_number",
    "recording_url",
];
/// Before any test, so that the times of creation are few and often the same.
const FIRST_SECOND: i64 = 1_700_000_000;
/// The calls at which writers in company meet.
const MEETING_POINTS: usize = 8;
const OUT_OF_SCOPE: (Code, &str) = (Code::PermissionDenied, "OUT_OF_SCOPE");

/// What is written.
#[derive(Debug, Clone)]
enum Operation {
    Write(Write),
    Import(VoiceCall),
}

impl Operation {
    /// The uid of the call that it changes; creates make new ones.
    fn uid(&self) -> Option<&str> {
        match self {
            Self::Write(write) => write.uid(),
            Self::Import(call) => Some(&call.uid),
        }
    }

    /// What a narrowed caller may never do, whatever the state of the call.
    fn is_for_others(&self, narrowing: Narrowing) -> bool {
        let chooses = |call: &VoiceCall| !call.uid.is_empty();
        match self {
            Self::Import(_) | Self::Write(Write::Purge(_)) => true,
            Self::Write(Write::Create(it)) => it.voice_call.iter().any(chooses),
            Self::Write(Write::BatchCreate(it)) => it.voice_calls.iter().any(chooses),
            Self::Write(Write::Handle(it)) => {
                let staff = narrowing.staff_uid;
                staff.is_some_and(|staff| staff != it.handled_by_staff_uid)
            }
            Self::Write(_) => false,
        }
    }
}

fn maybe<T>(random: &mut StdRng, often: f64, value: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
    random.random_bool(often).then(|| value(random))
}

fn one_of(random: &mut StdRng, values: &[&str]) -> String {
    (*values.choose(random).expect("there are some")).to_owned()
}

/// A time among few.
fn any_time(random: &mut StdRng) -> Timestamp {
    Timestamp {
        seconds: FIRST_SECOND + random.random_range(0..10),
        nanos: random.random_range(0..2) * 1000,
    }
}

/// A call at random without a uid. One that a caller writes is mostly its own.
fn any_call(random: &mut StdRng, narrowing: Narrowing) -> VoiceCall {
    let mut call = VoiceCall {
        duration: maybe(random, 0.5, any_duration),
        created_at: maybe(random, 0.7, any_time),
        status: random.random_range(1..=4),
        direction: random.random_range(1..=2),
        staff_uid: maybe(random, 0.6, |random| one_of(random, &NAMES)),
        client_uid: maybe(random, 0.7, |random| one_of(random, &NAMES)),
        handled_by_staff_uid: maybe(random, 0.3, |random| one_of(random, &NAMES)),
        handled_at: maybe(random, 0.3, any_time),
        from_number: maybe(random, 0.5, |random| one_of(random, &NUMBERS)),
        to_number: maybe(random, 0.5, |random| one_of(random, &NUMBERS)),
        recording_url: maybe(random, 0.3, |_| "https://example.com/a".into()),
        ..VoiceCall::default()
    };
    if random.random_bool(0.6) {
        let own = |name: Option<&str>| name.map(str::to_owned);
        call.client_uid = own(narrowing.client_uid).or(call.client_uid);
        let field = match random.random_bool(0.7) {
            true => &mut call.staff_uid,
            false => &mut call.handled_by_staff_uid,
        };
        *field = own(narrowing.staff_uid).or(field.take());
    }
    call
}

/// A uid of a call that is, was, or never was there. Writers in company meet at a few calls, so
/// that a batch has writes of one call by those who see it and by those who do not.
fn any_uid(random: &mut StdRng, world: &World, company: Company) -> String {
    let never = uuid::Uuid::from_u128(random.random()).to_string();
    let uids = world.uids.lock().expect("no panic");
    let among = match company {
        Company::Alone => &uids[..],
        Company::Others => &uids[uids.len().saturating_sub(MEETING_POINTS)..],
    };
    match random.random_bool(0.05) {
        true => never,
        false => among.choose(random).cloned().unwrap_or(never),
    }
}

fn any_update(random: &mut StdRng, uid: String, narrowing: Narrowing) -> Write {
    let count = random.random_range(1..=3);
    let paths = PATHS.iter().choose_multiple(random, count);
    let paths = paths.into_iter().map(|path| (*path).to_owned()).collect();
    let voice_call = VoiceCall {
        uid,
        created_at: None,
        ..any_call(random, narrowing)
    };
    Write::Update(UpdateVoiceCallRequest {
        voice_call: Some(voice_call),
        update_mask: Some(FieldMask { paths }),
        expected_revision: maybe(random, 0.05, |_| 1).unwrap_or_default(),
        allow_missing: random.random_bool(0.1),
        request_id: request_id(),
        validate_only: random.random_bool(0.05),
    })
}

fn any_operation(
    random: &mut StdRng,
    world: &World,
    narrowing: Narrowing,
    company: Company,
) -> Operation {
    let uid = any_uid(random, world, company);
    Operation::Write(match random.random_range(0..100) {
        0..15 => create_of(any_call(random, narrowing)),
        15..20 => batch_of((0..3).map(|_| any_call(random, narrowing)).collect()),
        20..22 => {
            let uid = uuid::Uuid::from_u128(random.random()).to_string();
            create_of(VoiceCall {
                uid,
                ..any_call(random, narrowing)
            })
        }
        22..62 => any_update(random, uid, narrowing),
        62..75 => {
            let own = narrowing.staff_uid.filter(|_| random.random_bool(0.8));
            let staff = own.map_or_else(|| one_of(random, &NAMES), str::to_owned);
            handle_of(&uid, &staff)
        }
        75..83 => delete_of(&uid, random.random_bool(0.3)),
        83..90 => undelete_of(&uid),
        90..98 => {
            let deleted_at = maybe(random, 0.2, any_time);
            return Operation::Import(VoiceCall {
                uid,
                deleted_at,
                ..any_call(random, narrowing)
            });
        }
        _ if narrowing.is_narrowed() => purge_of(&uid),
        _ => undelete_of(&uid),
    })
}

/// Whether other writers are at work, so that the state before a write is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    Alone,
    Others,
}

/// Sends so many random writes. Nothing is purged, except by those who may not.
pub(super) async fn write(world: &World, mut random: StdRng, count: usize, company: Company) {
    for _ in 0..count {
        let caller = match random.random_bool(0.6) {
            true => world.full(),
            false => world.callers.choose(&mut random).expect("there are some"),
        };
        let operation = any_operation(&mut random, world, caller.narrowing, company);
        let before = match operation.uid() {
            Some(uid) if company == Company::Alone && caller.narrowing.is_narrowed() => {
                find(world, uid).await
            }
            _ => None,
        };
        let result = send(world, caller, operation.clone()).await;
        if let Ok(calls) = &result
            && !matches!(&operation, Operation::Write(Write::Update(it)) if it.validate_only)
        {
            let mut uids = world.uids.lock().expect("no panic");
            uids.extend(calls.iter().map(|call| call.uid.clone()));
            uids.sort();
            uids.dedup();
        }
        if caller.narrowing.is_narrowed() {
            let checked = check(
                world,
                caller.narrowing,
                &operation,
                before,
                company,
                &result,
            );
            if let Err(why) = checked.await {
                panic!("{why}: {:?}, {operation:?}: {result:?}", caller.narrowing);
            }
        }
    }
}

/// The call as the one who sees everything finds it.
async fn find(world: &World, uid: &str) -> Option<VoiceCall> {
    let request = GetVoiceCallRequest {
        uid: uid.to_owned(),
        ..Default::default()
    };
    let request = world.full().request(request);
    let found = world.client().get_voice_call(request).await;
    found.ok()?.into_inner().voice_call
}

/// Sends it, and returns the calls that it made of those there were.
async fn send(
    world: &World,
    caller: &Caller,
    operation: Operation,
) -> Result<Vec<VoiceCall>, Status> {
    let mut client = world.client();
    match operation {
        Operation::Write(write) => write.send_as(&mut client, &caller.token).await,
        Operation::Import(call) => {
            let replace = ImportConflictPolicy::Replace;
            let imported = import_as(&mut client, Some(&caller.token), replace, [call.clone()]);
            let (_, end) = imported.await;
            end.map(|()| vec![call])
        }
    }
}

/// Checks what a narrowed caller was told.
async fn check(
    world: &World,
    narrowing: Narrowing,
    operation: &Operation,
    before: Option<VoiceCall>,
    company: Company,
    result: &Result<Vec<VoiceCall>, Status>,
) -> Result<(), &'static str> {
    let refusal = result.as_ref().err().map(facts);
    let refusal = refusal
        .as_ref()
        .map(|(code, reason, _)| (*code, reason.as_str()));
    if operation.is_for_others(narrowing) {
        return holds(refusal == Some(OUT_OF_SCOPE), "it may not do that");
    }
    if let Ok(calls) = result {
        let is_covered = calls.iter().all(|call| narrowing.covers(call));
        holds(is_covered, "it was shown what it may not see")?;
    }
    let Operation::Write(write) = operation else {
        return Ok(());
    };
    let creates = match write {
        Write::Create(it) => it.voice_call.clone().into_iter().collect(),
        Write::BatchCreate(it) => it.voice_calls.clone(),
        _ => Vec::new(),
    };
    if !creates.is_empty() {
        let is_theirs = creates.iter().all(|call| narrowing.covers(call));
        let expected = (!is_theirs).then_some(OUT_OF_SCOPE);
        return holds(refusal == expected, "it creates what is its own");
    }
    // All other writes leave a call with those who see it.
    let is_update = matches!(write, Write::Update(_));
    let is_refused = refusal == Some(OUT_OF_SCOPE);
    holds(
        is_update || !is_refused,
        "it is not there, or stays its own",
    )?;
    if company == Company::Others {
        return Ok(());
    }
    if before.is_some_and(|call| narrowing.covers(&call)) {
        holds(
            refusal.is_none_or(|it| it.0 != Code::NotFound),
            "it is there",
        )?;
        if let Write::Update(update) = write
            && is_refused
        {
            let stays = would_stay(world, narrowing, update).await;
            return holds(!stays, "it would still be its own");
        }
        return Ok(());
    }
    let expected = match write {
        // No call is at any revision.
        Write::Update(it) if it.allow_missing && it.expected_revision > 0 => {
            Some((Code::Aborted, "REVISION_MISMATCH"))
        }
        Write::Update(it) if it.allow_missing => Some(OUT_OF_SCOPE),
        Write::Delete(it) if it.allow_missing => None,
        _ => Some((Code::NotFound, "CALL_NOT_FOUND")),
    };
    holds(refusal == expected, "it is not there")?;
    match (result, write.uid()) {
        (Ok(calls), _) => holds(calls.is_empty(), "nothing is there"),
        (Err(status), Some(uid)) if status.code() == Code::NotFound => {
            let message = format!("there is no call {uid}");
            holds(status.message() == message, "the message is another")
        }
        _ => Ok(()),
    }
}

/// Whether the update, by one who may do anything, would leave the call to the narrowed caller.
async fn would_stay(world: &World, narrowing: Narrowing, update: &UpdateVoiceCallRequest) -> bool {
    let request = UpdateVoiceCallRequest {
        validate_only: true,
        request_id: String::new(),
        ..update.clone()
    };
    let request = world.full().request(request);
    let updated = world.client().update_voice_call(request).await;
    let updated = updated.expect("only its scope forbids it").into_inner();
    narrowing.covers(&updated.voice_call.expect("always set"))
}

fn holds(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// Purges some calls.
pub(super) async fn purge(world: &World, random: &mut StdRng, count: usize) {
    for _ in 0..count {
        let uid = any_uid(random, world, Company::Alone);
        // It may never have been there, or be purged already.
        let _ = send(world, world.full(), Operation::Write(purge_of(&uid))).await;
    }
}
