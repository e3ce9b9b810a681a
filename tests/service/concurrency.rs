//! Many clients on two replicas over one database, some on the same calls, also
//! while the database is killed: nothing acknowledged is lost, nothing is applied
//! twice, and the change log is dense and tells the whole story.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use voicecall::api::proto::{self, VoiceCall, VoiceCallStatus};

use crate::support::{
    Client, inbound,
    ledger::check_ledger,
    postgres::{Cluster, Durability, connect},
    server::Process,
};

const CLIENTS: u64 = 64;
const HOT_CALLS: u128 = 16;

/// How long the clients are busy; longer by VOICECALL_TEST_SECONDS.
fn busy_time() -> Duration {
    let seconds = std::env::var("VOICECALL_TEST_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(10))
}

#[derive(Clone, Debug)]
enum Write {
    Create(proto::CreateVoiceCallRequest),
    Update(proto::UpdateVoiceCallRequest),
    Handle(proto::HandleVoiceCallRequest),
    Delete(proto::DeleteVoiceCallRequest),
    Undelete(proto::UndeleteVoiceCallRequest),
}

impl Write {
    async fn send(self, client: &mut Client) -> Result<Option<VoiceCall>, Status> {
        Ok(match self {
            Self::Create(request) => {
                client
                    .create_voice_call(request)
                    .await?
                    .into_inner()
                    .voice_call
            }
            Self::Update(request) => {
                client
                    .update_voice_call(request)
                    .await?
                    .into_inner()
                    .voice_call
            }
            Self::Handle(request) => {
                client
                    .handle_voice_call(request)
                    .await?
                    .into_inner()
                    .voice_call
            }
            Self::Delete(request) => {
                client
                    .delete_voice_call(request)
                    .await?
                    .into_inner()
                    .voice_call
            }
            Self::Undelete(request) => {
                client
                    .undelete_voice_call(request)
                    .await?
                    .into_inner()
                    .voice_call
            }
        })
    }
}

/// What one client was told.
#[derive(Default)]
struct Told {
    /// Every answer to a write with a request id, by that id.
    answers: Vec<(String, Write, Option<VoiceCall>)>,
    /// Every call that a write without one was answered with.
    unnamed: Vec<VoiceCall>,
}

/// One client: writes until it is told to stop, on the replica that is its own,
/// repeating one request in ten on the other.
async fn busy(
    seed: u64,
    mut replicas: [Client; 2],
    stop: CancellationToken,
    acks: Arc<AtomicUsize>,
) -> Told {
    let mut random = StdRng::seed_from_u64(seed);
    let mut told = Told::default();
    let mut own = Vec::new();
    let home = usize::try_from(seed % 2).expect("small");
    while !stop.is_cancelled() {
        let named = random.random_bool(0.8);
        let request_id = if named {
            uuid::Uuid::from_u128(random.random()).to_string()
        } else {
            String::new()
        };
        let write = any_write(&mut random, &own, &request_id);
        let answer = match send_until_known(write.clone(), &mut replicas[home], named).await {
            Some(Ok(call)) => call,
            Some(Err(_)) | None => continue,
        };
        acks.fetch_add(1, Ordering::Relaxed);
        own.extend(answer.iter().map(|call| call.uid.clone()));
        own.truncate(50);
        if !named {
            told.unnamed.extend(answer);
            continue;
        }
        if random.random_bool(0.1) {
            let again = send_until_known(write.clone(), &mut replicas[1 - home], true).await;
            let again = again
                .expect("a named write is known")
                .expect("it was accepted before");
            assert_eq!(again, answer, "a repeat on the other replica");
        }
        told.answers.push((request_id, write, answer));
    }
    told
}

/// Sends a write, again and again while the database is away. `None`: nobody
/// knows, and without a request id it cannot be repeated.
async fn send_until_known(
    write: Write,
    client: &mut Client,
    named: bool,
) -> Option<Result<Option<VoiceCall>, Status>> {
    let mut pause = interval(Duration::from_millis(20));
    loop {
        match write.clone().send(client).await {
            Err(status) if status.code() == Code::Unavailable && named => {
                pause.tick().await;
            }
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown) => {
                return None;
            }
            Err(status) => {
                let code = status.code();
                let expected = [
                    Code::NotFound,
                    Code::AlreadyExists,
                    Code::FailedPrecondition,
                    Code::Aborted,
                ];
                assert!(expected.contains(&code), "{write:?}: {status:?}");
                return Some(Err(status));
            }
            answer => return Some(answer),
        }
    }
}

fn any_write(random: &mut StdRng, own: &[String], request_id: &str) -> Write {
    let hot = uuid::Uuid::from_u128(random.random_range(0..HOT_CALLS)).to_string();
    let uid = if own.is_empty() || random.random_bool(0.3) {
        hot
    } else {
        own[random.random_range(0..own.len())].clone()
    };
    let request_id = request_id.to_owned();
    let closed = [
        VoiceCallStatus::AnsweredByStaff,
        VoiceCallStatus::Missed,
        VoiceCallStatus::AnsweredByVonage,
    ];
    let changed = VoiceCall {
        uid: uid.clone(),
        status: closed[random.random_range(0..closed.len())].into(),
        duration: Some(random.random_range(0..3)),
        ..inbound()
    };
    match random.random_range(0..10) {
        0..4 => Write::Create(proto::CreateVoiceCallRequest {
            voice_call: Some(VoiceCall {
                uid: String::new(),
                ..changed
            }),
            request_id,
            ..Default::default()
        }),
        4..7 => Write::Update(proto::UpdateVoiceCallRequest {
            voice_call: Some(changed),
            allow_missing: random.random_bool(0.5),
            request_id,
            ..Default::default()
        }),
        7 => Write::Handle(proto::HandleVoiceCallRequest {
            uid,
            handled_by_staff_uid: format!("staff-{}", random.random_range(0..2)),
            request_id,
            ..Default::default()
        }),
        8 => Write::Delete(proto::DeleteVoiceCallRequest {
            uid,
            allow_missing: random.random_bool(0.5),
            request_id,
            ..Default::default()
        }),
        _ => Write::Undelete(proto::UndeleteVoiceCallRequest {
            uid,
            request_id,
            ..Default::default()
        }),
    }
}

/// Runs the clients; `meanwhile` may do to the cluster what it likes.
async fn storm(meanwhile: impl AsyncFnOnce(&Cluster, &AtomicUsize)) {
    let cluster = Cluster::start(Durability::Durable);
    let url = cluster.database().await;
    let replicas = [1, 2].map(|_| Process::start(&[("DATABASE_URL", &url)]));
    let until = Instant::now() + busy_time();
    let stop = CancellationToken::new();
    let acks = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|seed| {
            let channels = [replicas[0].client(), replicas[1].client()];
            tokio::spawn(busy(seed, channels, stop.clone(), Arc::clone(&acks)))
        })
        .collect();
    meanwhile(&cluster, &acks).await;
    // Whatever happens meanwhile may take longer on a busy machine.
    sleep_until(until).await;
    stop.cancel();
    let mut answers = HashMap::new();
    let mut acknowledged = Vec::new();
    for client in clients {
        let told = client.await.expect("no client panics");
        acknowledged.extend(told.unnamed);
        acknowledged.extend(told.answers.iter().filter_map(|(_, _, call)| call.clone()));
        answers.extend(
            told.answers
                .into_iter()
                .map(|(id, write, call)| (id, (write, call))),
        );
    }
    assert!(answers.len() > 100, "the clients were busy");
    let database = connect(&url).await;
    check_ledger(&database, &acknowledged).await;
    let head = check_ledger(&database, &[]).await;
    let mut client = replicas[0].client();
    for (id, (write, call)) in answers.into_iter().take(2_000) {
        // The last kill may still be felt.
        let again = send_until_known(write, &mut client, true).await;
        let again = again
            .expect("a named write is known")
            .expect("it was accepted before");
        assert_eq!(again, call, "request {id} answers the same");
    }
    assert_eq!(
        check_ledger(&database, &[]).await,
        head,
        "a repeat writes nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_under_64_clients_lose_and_repeat_nothing() {
    storm(async |_, _| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_they_when_the_database_is_killed_in_the_middle() {
    storm(async |cluster, acks| {
        for wanted in [1_000, 2_000, 3_000] {
            let mut look = interval(Duration::from_millis(5));
            while acks.load(Ordering::Relaxed) < wanted {
                look.tick().await;
            }
            tokio::task::block_in_place(|| {
                cluster.kill();
                cluster.restart();
            });
        }
    })
    .await;
}
