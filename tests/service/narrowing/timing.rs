//! Whether the time of a refusal tells its reason: a call that is not there, one that was purged,
//! and another's, small and large, take equally long to refuse.
//!
//! It runs only with VOICECALL_TEST_LONG set, and means something only on a machine that does
//! nothing else.

use std::{
    env,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tonic::Code;
use voicecall::proto::{GetVoiceCallRequest, UpdateVoiceCallRequest, VoiceCall};

use super::{
    World,
    callers::{Caller, NAMES},
    seed,
};
use crate::support::{
    inbound, mask,
    writes::{create_of, purge_of},
};

/// Requests of each kind.
const REQUESTS: usize = 10_000;
const WARM_UP: usize = 1000;
/// Calls of each kind, so that no single one is measured.
const CALLS: usize = 100;
const LARGE: usize = 60 * 1024;
/// Beyond so many standard deviations lies a thousandth of what chance does.
const MAX_DEVIATION: f64 = 3.29;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Absent,
    Purged,
    Others,
    LargeOthers,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Absent, Self::Purged, Self::Others, Self::LargeOthers];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rpc {
    Get,
    Update,
}

/// The uids of new calls of this kind, which are of nobody whom a caller sees.
async fn make(world: &World, kind: Kind, random: &mut StdRng) -> Vec<String> {
    let mut uids = Vec::new();
    for _ in 0..CALLS {
        if kind == Kind::Absent {
            uids.push(uuid::Uuid::now_v7().to_string());
            continue;
        }
        // Letters at random, which the database cannot compress.
        let mut letter = || char::from(random.random_range(b'a'..=b'z'));
        let summary: String = (0..LARGE).map(|_| letter()).collect();
        let call = VoiceCall {
            staff_uid: Some("another".into()),
            client_uid: Some("another".into()),
            call_summary: Some(summary).filter(|_| kind == Kind::LargeOthers),
            ..inbound()
        };
        let (mut client, token) = (world.client(), &world.full().token);
        let created = create_of(call).send_as(&mut client, token).await;
        let uid = created.expect("it is good").swap_remove(0).uid;
        if kind == Kind::Purged {
            let purged = purge_of(&uid).send_as(&mut client, token).await;
            purged.expect("it is there");
        }
        uids.push(uid);
    }
    uids
}

/// How long the refusal takes.
async fn refuse(world: &World, caller: &Caller, rpc: Rpc, uid: &str) -> Duration {
    let mut client = world.client();
    let uid = uid.to_owned();
    let (begun, result) = match rpc {
        Rpc::Get => {
            let request = caller.request(GetVoiceCallRequest {
                uid,
                min_revision: 0,
            });
            let begun = Instant::now();
            (begun, client.get_voice_call(request).await.map(drop))
        }
        Rpc::Update => {
            let request = caller.request(UpdateVoiceCallRequest {
                voice_call: Some(VoiceCall {
                    uid,
                    duration: Some(1),
                    ..VoiceCall::default()
                }),
                update_mask: mask(&["duration"]),
                ..Default::default()
            });
            let begun = Instant::now();
            (begun, client.update_voice_call(request).await.map(drop))
        }
    };
    let took = begun.elapsed();
    assert_eq!(result.expect_err("it is refused").code(), Code::NotFound);
    took
}

/// By how many standard deviations the ranks of `a` among both differ from those of a sample of
/// the same distribution as `b` (the test of Mann and Whitney, with the correction for ties).
fn deviation(a: &[Duration], b: &[Duration]) -> f64 {
    let mut all: Vec<_> = a.iter().map(|time| (time, 1.0)).collect();
    all.extend(b.iter().map(|time| (time, 0.0)));
    all.sort_by_key(|(time, _)| *time);
    let (mut rank_sum, mut ties, mut below) = (0.0, 0.0, 0.0);
    for equal in all.chunk_by(|one, next| one.0 == next.0) {
        let count = equal.len() as f64;
        let of_a: f64 = equal.iter().map(|(_, is_a)| is_a).sum();
        rank_sum += of_a * (below + (count + 1.0) / 2.0);
        ties += count * count * count - count;
        below += count;
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    let variance = n * m / 12.0 * (n + m + 1.0 - ties / ((n + m) * (n + m - 1.0)));
    (rank_sum - n * (n + m + 1.0) / 2.0) / variance.sqrt()
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn a_shift_of_one_percent_is_found_and_none_is_not() {
    let mut random = StdRng::seed_from_u64(1);
    let mut sample = |base: u64| -> Vec<Duration> {
        let time = |random: &mut StdRng| base + random.random_range(0..base / 10);
        (0..REQUESTS)
            .map(|_| Duration::from_nanos(time(&mut random)))
            .collect()
    };
    let (one, same, other) = (sample(100_000), sample(100_000), sample(101_000));
    assert!(deviation(&one, &same).abs() < MAX_DEVIATION);
    assert!(deviation(&one, &other).abs() > MAX_DEVIATION);
    assert!(deviation(&one, &other) < 0.0 && deviation(&one, &one).abs() < 1e-9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_a_refusal_does_not_tell_its_reason() {
    if env::var_os("VOICECALL_TEST_LONG").is_none() {
        println!("skipped: 80,000 requests one by one; VOICECALL_TEST_LONG=1 runs it");
        return;
    }
    let mut random = StdRng::seed_from_u64(seed());
    let world = World::start("timing").await;
    let mut uids = Vec::new();
    for kind in Kind::ALL {
        uids.push(make(&world, kind, &mut random).await);
    }
    let staff = world.callers.iter().find(|caller| {
        caller.narrowing.staff_uid == Some(NAMES[0]) && caller.narrowing.client_uid.is_none()
    });
    let staff = staff.expect("there is one");
    let kinds = (0..Kind::ALL.len()).flat_map(|kind| [(Rpc::Get, kind), (Rpc::Update, kind)]);
    let mut requests: Vec<_> = kinds
        .flat_map(|one| std::iter::repeat_n(one, REQUESTS))
        .collect();
    requests.shuffle(&mut random);
    for number in 0..WARM_UP {
        let uid = &uids[number % Kind::ALL.len()][number % CALLS];
        let rpc = if number % 2 == 0 {
            Rpc::Get
        } else {
            Rpc::Update
        };
        refuse(&world, staff, rpc, uid).await;
    }
    let mut times = [(); 4].map(|()| [Vec::new(), Vec::new()]);
    for (rpc, kind) in requests {
        let uid = &uids[kind][random.random_range(0..CALLS)];
        times[kind][rpc as usize].push(refuse(&world, staff, rpc, uid).await);
    }
    let mut differ = Vec::new();
    for rpc in [Rpc::Get, Rpc::Update] {
        let of = |kind: usize| &times[kind][rpc as usize];
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            let deviation = deviation(of(0), of(place));
            println!(
                "{rpc:?} {kind:?}: median {:?}, {deviation:.2}",
                median(of(place))
            );
            if deviation.abs() > MAX_DEVIATION {
                differ.push((rpc, kind, deviation));
            }
        }
    }
    assert!(
        differ.is_empty(),
        "their times differ from those of absent ones: {differ:?}"
    );
}
