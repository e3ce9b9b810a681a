//! The service under test: in this process on a port of its own, or as a separate process.

use std::{
    ffi::OsString,
    fs,
    fs::File,
    io::{BufRead, BufReader, Write},
    num::NonZeroUsize,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, sync_channel},
    },
    time::Duration,
};

use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use voicecall::{
    auth,
    proto::voice_call_service_client::VoiceCallServiceClient,
    server::{
        self, ApiLimits, Connector, FeedLimits, ReadLimits, Retention, Settings, StoreLimits,
    },
    store,
};

use super::postgres::Cluster;

/// The flow-control window of a narrow client.
const NARROW_WINDOW_BYTES: u32 = 2048;

pub(crate) type Client = VoiceCallServiceClient<Channel>;

/// The default settings.
pub(crate) fn settings() -> Settings {
    Settings {
        api: ApiLimits {
            max_request_bytes: 4 * 1024 * 1024,
            compress_responses: false,
            max_concurrent_requests: 4096,
            max_watches: 4096,
            max_transfers: 16,
            principal: auth::Limits::default(),
        },
        store: StoreLimits {
            write_queue: 4096,
            reads: ReadLimits {
                lookup_queue: 4096,
                list_connections: 4,
                statistics_connections: 2,
                planned_once_from: store::PLANNED_ONCE_FROM,
            },
            retention: Retention {
                keep: Duration::from_secs(7 * 24 * 3600),
                partition_len: 1_000_000,
            },
        },
        feed: FeedLimits {
            memory_bytes: 64 * 1024 * 1024,
            max_snapshots: 16,
        },
        workers: NonZeroUsize::new(2).expect("not zero"),
        connections: server::ConnectionLimits {
            max: 1024,
            handshake_timeout: Duration::from_secs(10),
            max_age: None,
            grace: Duration::from_secs(30),
        },
        migrate: true,
        drain_timeout: Duration::from_secs(10),
    }
}

/// A server in this process.
pub(crate) struct Server {
    pub(crate) endpoint: String,
    pub(crate) database_url: String,
    pub(crate) running: JoinHandle<Result<(), server::Error>>,
    pub(crate) shutdown: CancellationToken,
    _shutdown_on_drop: DropGuard,
}

impl Server {
    /// A server over a new database in the shared cluster.
    pub(crate) async fn start() -> Self {
        Self::start_with(settings()).await
    }

    /// The same with settings of its own.
    pub(crate) async fn start_with(settings: Settings) -> Self {
        let database_url = Cluster::shared().await.database().await;
        Self::start_on(&database_url, settings).await
    }

    /// A server over this database.
    pub(crate) async fn start_on(database_url: &str, settings: Settings) -> Self {
        let (server, ready) = Self::launch(database_url, settings).await;
        ready.await.expect("the server starts");
        server
    }

    /// A server that may have to wait for its database; the receiver is notified when it
    /// serves.
    pub(crate) async fn launch(
        database_url: &str,
        settings: Settings,
    ) -> (Self, oneshot::Receiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        Self::launch_on(listener, database_url, settings)
    }

    /// The same on a listener of the test's.
    pub(crate) fn launch_on(
        listener: TcpListener,
        database_url: &str,
        settings: Settings,
    ) -> (Self, oneshot::Receiver<()>) {
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let connector = Connector::new(database_url).expect("a valid URL");
        let shutdown = CancellationToken::new();
        let (tell, ready) = oneshot::channel();
        let token = shutdown.clone();
        let running = tokio::spawn(async move {
            let tell = |_| {
                // The test may not care to wait.
                let _ = tell.send(());
            };
            let security = server::Security::default();
            server::run(listener, connector, settings, security, token, tell).await
        });
        let server = Self {
            endpoint,
            database_url: database_url.to_owned(),
            running,
            shutdown: shutdown.clone(),
            _shutdown_on_drop: shutdown.drop_guard(),
        };
        (server, ready)
    }

    /// A channel to it.
    pub(crate) fn channel(&self) -> Channel {
        channel(&self.endpoint)
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        client(&self.endpoint)
    }

    /// Shuts it down, and waits until it has stopped.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.expect("no panic").expect("a clean end");
    }
}

/// The status that health checks return for a service that serves.
pub(crate) const SERVING: i32 = 1;
/// And for one that does not.
pub(crate) const NOT_SERVING: i32 = 2;

/// What a health check says of this service; the empty name is the whole server.
pub(crate) async fn health(channel: Channel, service: &str) -> i32 {
    let request = HealthCheckRequest {
        service: service.into(),
    };
    let response = HealthClient::new(channel).check(request).await;
    response.expect("it knows the service").into_inner().status
}

/// A channel that connects when it is first used.
pub(crate) fn channel(endpoint: &str) -> Channel {
    Endpoint::from_shared(endpoint.to_owned())
        .expect("a valid endpoint")
        .connect_lazy()
}

/// A client of the server at `endpoint`.
pub(crate) fn client(endpoint: &str) -> Client {
    VoiceCallServiceClient::new(channel(endpoint)).max_decoding_message_size(4 * 1024 * 1024)
}

/// A client with a tiny flow-control window: while it does not read, the server waits.
pub(crate) fn narrow_client(endpoint: &str) -> Client {
    let endpoint = Endpoint::from_shared(endpoint.to_owned()).expect("a valid endpoint");
    let channel = endpoint.initial_stream_window_size(NARROW_WINDOW_BYTES);
    Client::new(channel.connect_lazy())
}

/// What a process has logged so far. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Whether a line contains each of these words, in any letter case.
    pub(crate) fn has(&self, words: &[&str]) -> bool {
        let is_wanted = |line: &String| {
            let line = line.to_lowercase();
            words.iter().all(|word| line.contains(&word.to_lowercase()))
        };
        self.0.lock().expect("no panic here").iter().any(is_wanted)
    }

    /// All lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panic here").clone()
    }

    fn push(&self, line: String) {
        self.0.lock().expect("no panic here").push(line);
    }
}

/// The program that tests start: another build if VOICECALL_TEST_PROGRAM names one.
pub(crate) fn program() -> OsString {
    let program = std::env::var_os("VOICECALL_TEST_PROGRAM");
    program.unwrap_or_else(|| env!("CARGO_BIN_EXE_voicecall").into())
}

/// A server as a process of its own; killed (SIGKILL) when dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    /// Where it serves; empty until it does.
    pub(crate) endpoint: String,
    pub(crate) log: Log,
}

impl Process {
    /// Starts `voicecall serve` with these environment variables on a free port,
    /// and waits until it serves. Its log also goes to a file in the directory
    /// VOICECALL_TEST_LOGS, if that is set.
    pub(crate) fn start(environment: &[(&str, &str)]) -> Self {
        let (mut process, serving) = Self::launch(environment);
        match serving.recv() {
            Ok(endpoint) => process.endpoint = endpoint,
            Err(_) => {
                let status = process.child.wait().expect("it is our child");
                panic!("the server ended with {status}: {:#?}", process.log.lines());
            }
        }
        process
    }

    /// Starts one that may have to wait for its database; its endpoint is
    /// received when it serves.
    pub(crate) fn launch(environment: &[(&str, &str)]) -> (Self, Receiver<String>) {
        let mut command = Command::new(program());
        command
            .arg("serve")
            .env("VOICECALL_LISTEN", "127.0.0.1:0")
            .env_remove("DATABASE_URL")
            .envs(environment.iter().copied())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program is built");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let log = Log::default();
        let (tell, serving) = sync_channel(1);
        let mut file = std::env::var_os("VOICECALL_TEST_LOGS").map(|dir| {
            let path = PathBuf::from(dir).join(format!("{}.log", child.id()));
            File::create(path).expect("the directory is there")
        });
        // Ends with the process: one that writes to a pipe that nobody reads stops
        // some day.
        std::thread::spawn({
            let log = log.clone();
            move || {
                for line in stderr.lines() {
                    let line = line.expect("log lines are text");
                    if let Some(file) = &mut file {
                        writeln!(file, "{line}").expect("the disk is not full");
                    }
                    let address = line
                        .split_once("listening on ")
                        .and_then(|(_, rest)| rest.split([',', ' ']).next().map(str::to_owned));
                    log.push(line);
                    if let Some(address) = address {
                        // The test may not care to wait.
                        let _ = tell.try_send(format!("http://{address}"));
                    }
                }
            }
        });
        let process = Self {
            child,
            endpoint: String::new(),
            log,
        };
        (process, serving)
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        client(&self.endpoint)
    }

    /// The memory that it uses, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most memory that it has used so far, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// Lets the peak begin again at what it uses now.
    pub(crate) fn forget_peak(&self) {
        let forget = fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
        forget.expect("it is our child");
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.expect("Linux says so").trim().trim_end_matches(" kB");
        kib.parse().expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A service that can be killed and started again at the same address.
pub(crate) struct Restartable {
    database_url: String,
    address: String,
    process: Option<Process>,
}

impl Restartable {
    /// One over a new database, started.
    pub(crate) async fn start() -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = free.local_addr().expect("bound").to_string();
        drop(free);
        let mut this = Self {
            database_url: Cluster::shared().await.database().await,
            address,
            process: None,
        };
        this.run();
        this
    }

    /// Starts it.
    pub(crate) fn run(&mut self) {
        self.process = Some(Process::start(&[
            ("DATABASE_URL", &self.database_url),
            ("VOICECALL_LISTEN", &self.address),
        ]));
    }

    /// Kills it (SIGKILL).
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The library's client of it.
    pub(crate) fn client(&self) -> voicecall::client::Client {
        voicecall::client::Client::new(&voicecall::client::Settings::new(self.endpoint()))
            .expect("good settings")
    }
}
