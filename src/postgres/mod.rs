//! The embedded PostgreSQL: a server that the service runs by itself, in its own data
//! directory, when DATABASE_URL is not set.
//!
//! It owns everything from finding the server's programs to stopping them: the locked data
//! directory, the cluster in it, the unprivileged account, the private socket, the server process
//! and its restarts. It does not speak SQL (but for CREATE DATABASE), know the schema or pool
//! connections: the store does, with [`Postgres::database_url`]. `commands` starts it before the
//! store and stops it after.
//!
//! Invariants:
//!
//! - The lock on the data directory is acquired first and released last, so that its holder
//!   has exclusive access to the data.
//! - A directory named `postgres` is a complete, durable cluster with its database: it is
//!   created under another name.
//! - No server is started on data that another one may still be writing.

mod account;
mod binaries;
mod cluster;
mod data_dir;
mod error;
mod launch;
mod logs;
mod postmaster;
mod server;
mod socket;
mod supervisor;

use std::path::{Path, PathBuf};

use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::info;

use account::Account;
use data_dir::DataDir;
use launch::Launch;
use logs::Logs;
use socket::SocketDir;

pub use binaries::Binaries;
pub use error::Error;

/// The name of the superuser and of the database in every cluster.
const USER_AND_DATABASE: &str = "voicecall";

/// What an operator can choose.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the data lives. `None`: `/var/lib/voicecall` as root, otherwise
    /// `voicecall` under `$XDG_DATA_HOME` or `~/.local/share`.
    pub data_dir: Option<PathBuf>,
    /// The directory of PostgreSQL's server programs. `None`: the newest that is found.
    pub bin_dir: Option<PathBuf>,
    /// The size of the server's cache, in mebibytes.
    pub shared_buffers_mib: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: None,
            bin_dir: None,
            shared_buffers_mib: 256,
        }
    }
}

/// A running embedded PostgreSQL, kept running until [`stop`](Self::stop).
///
/// Dropping it without `stop` also asks the server to stop, but does not wait for that.
#[derive(Debug)]
pub struct Postgres {
    data_dir: PathBuf,
    database_url: String,
    stop: DropGuard,
    tasks: TaskTracker,
}

impl Postgres {
    /// Starts the server, after creating its cluster if there is none, and returns when it
    /// accepts connections. After a crash that may take minutes.
    ///
    /// `cancel` only cancels the start. A started server outlives it, because the service
    /// needs the database while it drains.
    ///
    /// # Errors
    ///
    /// Each [`Error`] says what to do about it. Nothing is left running.
    pub async fn start(settings: Settings, cancel: &CancellationToken) -> Result<Self, Error> {
        let path = data_dir::resolve(settings.data_dir)?;
        let account = Account::choose(&path.join(data_dir::CLUSTER))?;
        // Checked before anything is created, so that a failure leaves no trace.
        account.check_access(path.parent().unwrap_or(&path))?;
        let data_dir = DataDir::open(path)?;
        account.check_access(data_dir.path())?;

        let major = cluster::major(&data_dir.cluster())?;
        let binaries = Binaries::find_for(settings.bin_dir.as_deref(), major)?;
        account.check_access(binaries.dir())?;
        cluster::remove_unfinished(data_dir.path()).await;
        if major.is_none() {
            cluster::create(&data_dir, &binaries, &account, cancel).await?;
        }

        let launch = Launch {
            cluster: data_dir.cluster(),
            socket: SocketDir::prepare(data_dir.path(), &account)?,
            logs: Logs::prepare(data_dir.path(), &account)?,
            shared_buffers_mib: settings.shared_buffers_mib,
            binaries,
            account,
        };
        let server = supervisor::start(&launch, cancel).await?;
        info!(
            data_dir = %data_dir.path().display(),
            version = launch.binaries.major(),
            account = launch.account.name(),
            "the embedded PostgreSQL is ready"
        );
        Ok(Self::supervised(server, launch, data_dir))
    }

    fn supervised(server: server::Server, launch: Launch, data_dir: DataDir) -> Self {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let path = data_dir.path().to_owned();
        let database_url = launch.socket.database_url();
        tasks.spawn(supervisor::supervise(
            server,
            launch,
            data_dir,
            stop.clone(),
        ));
        Self {
            data_dir: path,
            database_url,
            stop: stop.drop_guard(),
            tasks,
        }
    }

    /// How to connect: keywords and values as in libpq, which tokio-postgres accepts too.
    #[must_use]
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// The directory that holds the data, absolute and without symbolic links.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Stops the server, and returns when it has ended and the lock is released: at once if it
    /// is idle, and always in less than a minute.
    pub async fn stop(self) {
        drop(self.stop);
        self.tasks.close();
        self.tasks.wait().await;
    }
}
