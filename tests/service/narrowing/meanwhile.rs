//! Exports and snapshots of narrowed callers, which are read while calls change hands: they are
//! what the caller saw at their revision.

use rand::{
    Rng, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};
use tonic::Streaming;
use voicecall::proto::{
    ExportVoiceCallsRequest, ExportVoiceCallsResponse, UpdateVoiceCallRequest, VoiceCall,
    VoiceCallFilter, WatchVoiceCallsRequest, watch_voice_calls_response::Message,
};

use super::{
    World,
    callers::NAMES,
    live::difference,
    model::{Log, View},
    seed,
};
use crate::support::{
    Client, inbound, mask, request_id,
    server::narrow_client,
    watcher::{Watcher, from, snapshot},
    writes::{Write, batch_of, delete_of},
};

/// Calls, and the size of each: a caller who sees a quarter of them has more to read than all
/// buffers hold.
const CALLS: usize = 1500;
const SUMMARY_LEN: usize = 16 * 1024;
const CALLS_PER_BATCH: usize = 100;
const CHANGES: usize = 600;

fn any_call(random: &mut StdRng) -> VoiceCall {
    // Few names, so that each sees many.
    let name = |random: &mut StdRng| {
        let names = [None, Some(NAMES[0]), Some(NAMES[1])];
        names.choose(random).copied().flatten().map(str::to_owned)
    };
    VoiceCall {
        staff_uid: name(random),
        client_uid: name(random),
        handled_by_staff_uid: name(random),
        ..inbound()
    }
}

async fn fill(world: &World, random: &mut StdRng) -> Vec<VoiceCall> {
    let mut calls = Vec::new();
    while calls.len() < CALLS {
        let batch = (0..CALLS_PER_BATCH).map(|_| VoiceCall {
            call_summary: Some("x".repeat(SUMMARY_LEN)),
            ..any_call(random)
        });
        let batch = batch_of(batch.collect());
        let created = batch
            .send_as(&mut world.client(), &world.full().token)
            .await;
        calls.extend(created.expect("they are good"));
    }
    calls
}

/// Gives calls to others, deletes some, and makes one that is early in the order.
async fn change_hands(world: &World, random: &mut StdRng, calls: &[VoiceCall]) {
    let mut order: Vec<_> = calls.iter().collect();
    order.shuffle(random);
    for call in &order[..CHANGES] {
        let write = match random.random_bool(0.1) {
            true => delete_of(&call.uid, false),
            false => Write::Update(UpdateVoiceCallRequest {
                voice_call: Some(VoiceCall {
                    uid: call.uid.clone(),
                    ..any_call(random)
                }),
                update_mask: mask(&["staff_uid", "client_uid", "handled_by_staff_uid"]),
                request_id: request_id(),
                ..Default::default()
            }),
        };
        let written = write
            .send_as(&mut world.client(), &world.full().token)
            .await;
        written.expect("it is there");
    }
    for call in order[..20].iter().copied() {
        let early = VoiceCall {
            created_at: call.created_at,
            ..any_call(random)
        };
        let (mut client, token) = (world.client(), &world.full().token);
        let created = batch_of(vec![early]).send_as(&mut client, token).await;
        created.expect("it is good");
    }
}

/// An export, and its first chunk.
struct Export {
    view: View,
    calls: Vec<VoiceCall>,
    revision: i64,
    rest: Streaming<ExportVoiceCallsResponse>,
}

impl Export {
    async fn start(mut client: Client, world: &World, caller: usize, view: View) -> Self {
        let request = ExportVoiceCallsRequest {
            filter: Some(view.filter.clone()),
            min_revision: 0,
        };
        let request = world.callers[caller].request(request);
        let mut rest = client
            .export_voice_calls(request)
            .await
            .expect("it begins")
            .into_inner();
        let first = rest
            .message()
            .await
            .expect("no error")
            .expect("there is one");
        Self {
            view,
            calls: first.voice_calls,
            revision: first.revision,
            rest,
        }
    }

    async fn check(mut self, log: &Log) {
        while let Some(chunk) = self.rest.message().await.expect("no error") {
            assert_eq!(chunk.revision, self.revision);
            self.calls.extend(chunk.voice_calls);
        }
        let expected = log.calls_at(&self.view, self.revision);
        if let Some(wrong) = difference(&slim(self.calls), &slim(expected)) {
            panic!("an export, {:?}: {wrong}", self.view);
        }
    }
}

/// A watch that begins with a snapshot, and the first chunk of that.
struct Snapshot {
    view: View,
    calls: Vec<VoiceCall>,
    rest: Watcher,
}

impl Snapshot {
    async fn start(mut client: Client, world: &World, caller: usize, view: View) -> Self {
        let request = WatchVoiceCallsRequest {
            filter: Some(view.filter.clone()),
            ..from(snapshot())
        };
        let request = world.callers[caller].request(request);
        let mut rest = Watcher::start(&mut client, request)
            .await
            .expect("it begins");
        let Message::SnapshotChunk(first) = rest.next().await.expect("it goes on") else {
            panic!("there is a chunk");
        };
        Self {
            view,
            calls: first.voice_calls,
            rest,
        }
    }

    async fn check(mut self, log: &Log) {
        let (calls, revision) = self.rest.snapshot().await;
        self.calls.extend(calls);
        let expected = log.calls_at(&self.view, revision);
        if let Some(wrong) = difference(&slim(self.calls), &slim(expected)) {
            panic!("a snapshot, {:?}: {wrong}", self.view);
        }
        let events = self.rest.until(log.head()).await;
        let expected = log.events(&self.view, revision, false);
        if let Some(wrong) = difference(&events, &expected) {
            panic!("after a snapshot, {:?}: {wrong}", self.view);
        }
    }
}

/// Without what makes a failure unreadable.
fn slim(mut calls: Vec<VoiceCall>) -> Vec<VoiceCall> {
    for call in &mut calls {
        call.call_summary = None;
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exports_and_snapshots_are_what_the_caller_saw_at_their_revision() {
    let mut random = StdRng::seed_from_u64(seed());
    let world = World::start("meanwhile").await;
    let mut all = world.watch_all().await;
    let calls = fill(&world, &mut random).await;
    let mut callers: Vec<_> = (0..world.callers.len())
        .filter(|caller| {
            let narrowing = world.callers[*caller].narrowing;
            let covered = calls.iter().filter(|call| narrowing.covers(call)).count();
            narrowing.is_narrowed() && covered >= CALLS / 4
        })
        .collect();
    callers.shuffle(&mut random);
    let (mut exports, mut snapshots) = (Vec::new(), Vec::new());
    for (place, caller) in callers.into_iter().take(6).enumerate() {
        let view = View {
            narrowing: world.callers[caller].narrowing,
            filter: VoiceCallFilter {
                show_deleted: random.random(),
                ..Default::default()
            },
        };
        let client = narrow_client(&world.server.endpoint);
        match place % 2 {
            0 => exports.push(Export::start(client, &world, caller, view).await),
            _ => snapshots.push(Snapshot::start(client, &world, caller, view).await),
        }
    }
    assert!(
        exports.len() > 1 && snapshots.len() > 1,
        "somebody sees a quarter"
    );
    change_hands(&world, &mut random, &calls).await;
    let head = world.head().await;
    all.reach(head).await;
    let log = Log::new(all.finish().await);
    for export in exports {
        export.check(&log).await;
    }
    for snapshot in snapshots {
        snapshot.check(&log).await;
    }
}
