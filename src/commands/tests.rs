//! What the end of each task comes to while the service is in use, on the embedded PostgreSQL.

use std::{
    collections::BTreeSet, env, fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration,
};

use clap::Parser;
use tokio::{
    sync::oneshot,
    time::{interval, timeout},
};
use tonic::transport::Endpoint;

use super::*;
use crate::{
    proto::{
        CreateVoiceCallRequest, VoiceCall, VoiceCallDirection,
        voice_call_service_client::VoiceCallServiceClient,
    },
    store::Supervisor,
};

/// Longer than anything takes that is not broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Their end ends the process.
const ESSENTIAL: [&str; 7] = [
    "accepting connections",
    "commits",
    "health checks",
    "look-ups",
    "pings",
    "unread responses",
    "the feed",
];

/// These are started again.
const RESTARTED: [&str; 4] = [
    "erasure",
    "notifications from other replicas",
    "notifications to other replicas",
    "the upkeep of the tables",
];

/// A directory that goes away.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is in a temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn postgres() -> (Scratch, Postgres) {
    let dir = env::temp_dir().join(format!("voicecall-tasks-{}", std::process::id()));
    fs::create_dir(&dir).expect("the name is new");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let scratch = Scratch(dir);
    let settings = postgres::Settings {
        data_dir: Some(scratch.0.join("data")),
        shared_buffers_mib: 16,
        ..postgres::Settings::default()
    };
    let postgres = Postgres::start(settings, &CancellationToken::new()).await;
    (scratch, postgres.expect("it starts"))
}

/// Runs a server; `work` gets its address when it serves. Returns how the server ended.
async fn serve<F: Future<Output = ()>>(
    postgres: &Postgres,
    supervisor: &Supervisor,
    shutdown: &CancellationToken,
    work: impl FnOnce(SocketAddr) -> F,
) -> Result<(), server::Error> {
    let Command::Serve(settings) = Cli::parse_from(["voicecall", "serve"]).command else {
        panic!("it is serve");
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("it is free");
    let connector = Connector::new(postgres.database_url()).expect("valid");
    let (tell, ready) = oneshot::channel();
    let ready_to_serve = |address| tell.send(address).expect("it is waited for");
    let run = server::run_under(
        supervisor,
        listener,
        connector,
        (settings.server(), server::Security::default()),
        shutdown.clone(),
        ready_to_serve,
    );
    let work = async { work(ready.await.expect("it serves")).await };
    let both = async { tokio::join!(run, work).0 };
    timeout(PATIENCE, both).await.expect("it ends")
}

async fn create(address: SocketAddr) {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("valid");
    let mut client = VoiceCallServiceClient::new(endpoint.connect_lazy());
    let request = CreateVoiceCallRequest {
        voice_call: Some(VoiceCall {
            direction: VoiceCallDirection::Inbound.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let created = client.create_voice_call(request).await;
    created.expect("it is served");
}

/// How often each of these tasks has been started.
fn starts(supervisor: &Supervisor, task: &str) -> usize {
    let tasks = supervisor.tasks().into_iter();
    tasks.filter(|(name, _)| *name == task).count()
}

fn kill(supervisor: &Supervisor, task: &str) {
    let tasks = supervisor.tasks().into_iter();
    for (_, handle) in tasks.filter(|(name, _)| *name == task) {
        handle.abort();
    }
}

#[tokio::test]
async fn the_end_of_each_task_comes_to_what_supervision_promises() {
    let (_scratch, postgres) = postgres().await;
    for task in ESSENTIAL {
        let supervisor = Supervisor::default();
        let shutdown = CancellationToken::new();
        let ended = serve(&postgres, &supervisor, &shutdown, async |address| {
            create(address).await;
            kill(&supervisor, task);
        })
        .await;
        let error = ended.expect_err("it was not told to stop").to_string();
        assert_eq!(error, format!("the task for {task} was aborted"));
    }

    let (supervisor, shutdown) = (Supervisor::default(), CancellationToken::new());
    let ended = serve(&postgres, &supervisor, &shutdown, async |address| {
        create(address).await;
        let all: BTreeSet<&str> = supervisor.tasks().iter().map(|(task, _)| *task).collect();
        let expected = ESSENTIAL.into_iter().chain(RESTARTED);
        assert_eq!(all, expected.collect());
        for task in RESTARTED {
            kill(&supervisor, task);
        }
        create(address).await;
        let mut looks = interval(Duration::from_millis(5));
        while !RESTARTED.iter().all(|task| starts(&supervisor, task) == 2) {
            looks.tick().await;
        }
        create(address).await;
        shutdown.cancel();
    })
    .await;
    ended.expect("it was told to stop");
    postgres.stop().await;
}
