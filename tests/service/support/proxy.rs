//! A proxy between the service and PostgreSQL that injects network faults: it cuts,
//! freezes or blackholes connections, or never answers new ones. It does not know
//! PostgreSQL's protocol and never changes a byte.
//!
//! It runs on a thread of its own, so that a test that blocks its runtime does not
//! stop it. Dropping it ends all its connections and removes its socket.

use std::{
    net::TcpListener as StdTcpListener,
    os::unix::net::UnixListener as StdUnixListener,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener, UnixStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::postgres::Cluster;

/// How much a frozen direction buffers before it stops reading.
const MAX_HELD_BYTES: usize = 1024 * 1024;

static PROXIES: AtomicU32 = AtomicU32::new(0);

/// The direction of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the service to PostgreSQL.
    ToServer,
    /// From PostgreSQL to the service.
    ToClient,
    Both,
}

/// The present faults. Connections are numbered in the order they were accepted.
#[derive(Debug, Default)]
struct Faults {
    frozen: Option<Direction>,
    /// New connections are accepted and never answered.
    silent: bool,
    /// Data on connections below this number is discarded.
    swallowed_below: u64,
    /// Connections below this number are closed.
    cut_below: u64,
    /// The number of the next connection.
    next: u64,
}

impl Faults {
    fn freezes(&self, direction: Direction) -> bool {
        self.frozen
            .is_some_and(|frozen| frozen == Direction::Both || frozen == direction)
    }
}

/// A running proxy in front of one cluster.
pub(crate) struct Proxy {
    /// The directory of its socket.
    dir: PathBuf,
    tcp_port: u16,
    faults: watch::Sender<Faults>,
    /// The number of connections that the service has not closed yet.
    open: Arc<AtomicUsize>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy that forwards to this cluster.
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let number = PROXIES.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("voicecall-proxy-{}-{number}", std::process::id()));
        std::fs::create_dir(&dir).expect("the directory is new");
        let unix = StdUnixListener::bind(dir.join(".s.PGSQL.5432")).expect("the socket is new");
        let tcp = StdTcpListener::bind("127.0.0.1:0").expect("a port is free");
        let tcp_port = tcp.local_addr().expect("bound").port();
        unix.set_nonblocking(true).expect("it is ours");
        tcp.set_nonblocking(true).expect("it is ours");
        let faults = watch::Sender::new(Faults::default());
        let open = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let relay = Relay {
            server: cluster.socket(),
            faults: faults.clone(),
            open: Arc::clone(&open),
        };
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(stopped.run_until_cancelled(relay.run(unix, tcp)));
        });
        Self {
            dir,
            tcp_port,
            faults,
            open,
            stop,
            thread: Some(thread),
        }
    }

    /// The connection string of a database of the cluster, through this proxy's
    /// socket.
    pub(crate) fn url(&self, database: &str) -> String {
        let dir = self.dir.display();
        format!("host={dir} port=5432 user=voicecall dbname={database}")
    }

    /// The port on 127.0.0.1 where it listens as well.
    pub(crate) fn tcp_port(&self) -> u16 {
        self.tcp_port
    }

    /// How many connections the service holds open.
    pub(crate) fn connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Closes all present connections.
    pub(crate) fn cut(&self) {
        self.faults
            .send_modify(|faults| faults.cut_below = faults.next);
    }

    /// Closes the connections that `swallow_present` discards the data of.
    pub(crate) fn cut_swallowed(&self) {
        self.faults
            .send_modify(|faults| faults.cut_below = faults.cut_below.max(faults.swallowed_below));
    }

    /// Holds back the data of this direction, on present and new connections, until
    /// `thaw`. Nothing is lost, and connecting still succeeds.
    pub(crate) fn freeze(&self, direction: Direction) {
        self.faults
            .send_modify(|faults| faults.frozen = Some(direction));
    }

    /// Ends a freeze.
    pub(crate) fn thaw(&self) {
        self.faults.send_modify(|faults| faults.frozen = None);
    }

    /// Blackholes the present connections: they stay open, and everything that is sent
    /// on them is discarded, even that one side closed. New connections work.
    pub(crate) fn swallow_present(&self) {
        self.faults
            .send_modify(|faults| faults.swallowed_below = faults.next);
    }

    /// Whether new connections are accepted and never answered. They stay unanswered
    /// until they are closed or cut.
    pub(crate) fn silent(&self, silent: bool) {
        self.faults.send_modify(|faults| faults.silent = silent);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic has been printed already.
            let _ = thread.join();
        }
        // Nothing else is in it.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The proxy's side of the connections, on its thread.
#[derive(Clone)]
struct Relay {
    server: PathBuf,
    faults: watch::Sender<Faults>,
    open: Arc<AtomicUsize>,
}

impl Relay {
    async fn run(self, unix: StdUnixListener, tcp: StdTcpListener) {
        let unix = UnixListener::from_std(unix).expect("it is not blocking");
        let tcp = TcpListener::from_std(tcp).expect("it is not blocking");
        loop {
            tokio::select! {
                client = unix.accept() => {
                    let (reader, writer) = client.expect("it listens").0.into_split();
                    self.spawn(reader, writer);
                }
                client = tcp.accept() => {
                    let client = client.expect("it listens").0;
                    client.set_nodelay(true).expect("it is ours");
                    let (reader, writer) = client.into_split();
                    self.spawn(reader, writer);
                }
            }
        }
    }

    /// Serves a connection in a task, which ends with the runtime if not before.
    fn spawn(
        &self,
        reader: impl AsyncRead + Unpin + Send + 'static,
        writer: impl AsyncWrite + Unpin + Send + 'static,
    ) {
        let mut number = 0;
        self.faults.send_modify(|faults| {
            number = faults.next;
            faults.next += 1;
        });
        let open = Open::new(&self.open);
        let (server, faults) = (self.server.clone(), self.faults.subscribe());
        tokio::spawn(async move {
            let mut cut = faults.clone();
            tokio::select! {
                () = serve(reader, writer, &server, number, faults, open) => {}
                _ = cut.wait_for(|faults| number < faults.cut_below) => {}
            }
        });
    }
}

/// Counts a connection for as long as the service holds it open.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Serves one connection until one side has closed it, and all that this side sent
/// before has been forwarded.
async fn serve(
    mut reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    server: &Path,
    number: u64,
    faults: watch::Receiver<Faults>,
    open: Open,
) {
    let is_silent = faults.borrow().silent;
    if is_silent {
        // Until the client closes it.
        let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
        return;
    }
    // Without a server, the connection is closed at once.
    let Ok(server) = UnixStream::connect(server).await else {
        return;
    };
    let (server_reader, server_writer) = server.into_split();
    let pump = |direction, open| Pump {
        direction,
        number,
        faults: faults.clone(),
        open,
    };
    let to_server = pump(Direction::ToServer, Some(open)).run(reader, server_writer);
    let to_client = pump(Direction::ToClient, None).run(server_reader, writer);
    // PostgreSQL and its clients close both ways at once.
    tokio::select! {
        () = to_server => {}
        () = to_client => {}
    }
}

/// One direction of one connection.
struct Pump {
    direction: Direction,
    number: u64,
    faults: watch::Receiver<Faults>,
    open: Option<Open>,
}

impl Pump {
    /// Forwards data until the end of the stream.
    async fn run(mut self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut held = Vec::new();
        let (mut is_at_end, mut is_refused) = (false, false);
        loop {
            let (is_swallowed, is_frozen) = {
                let faults = self.faults.borrow_and_update();
                let is_swallowed = self.number < faults.swallowed_below;
                (is_swallowed, faults.freezes(self.direction))
            };
            if is_swallowed {
                held.clear();
            } else if !is_frozen {
                // The other direction may still have data to forward.
                is_refused = is_refused || to.write_all(&held).await.is_err();
                held.clear();
                if is_at_end {
                    return;
                }
            }
            tokio::select! {
                read = from.read_buf(&mut held), if !is_at_end && held.len() < MAX_HELD_BYTES => {
                    // A reset is an end as well.
                    if read.unwrap_or(0) == 0 {
                        is_at_end = true;
                        self.open = None;
                    }
                }
                changed = self.faults.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
