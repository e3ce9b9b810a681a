//! The command line: the commands of the program ([`Command`]; those of clients are in `cli`), and
//! every setting of `serve`, `migrate` and `auth`, with its flag, its environment variable, its
//! unit and its default. A new setting of the server is a field of [`Serve`] and a line in
//! [`Serve::server`]; one about who may connect or call goes to `security`, and one about how much
//! of it to `principal`.

pub(crate) mod auth;
mod principal;
mod security;

pub(crate) use auth::Auth;
pub(crate) use principal::PrincipalLimits;
pub(crate) use security::Security;

use std::{fs, net::SocketAddr, num::NonZeroUsize, path::PathBuf, thread, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::{api, cli, feed, postgres, server, store};

/// The most threads that serve connections by default: one thread can keep several
/// processors of PostgreSQL busy.
const MAX_DEFAULT_WORKERS: usize = 8;

/// How long a client may take for the HTTP/2 preface and its SETTINGS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests may take to end on a connection that has reached its maximum age.
const CONNECTION_GRACE: Duration = Duration::from_secs(30);

/// The command line; its `--help` begins with the package's description.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, after_help = cli::EXIT_CODES)]
pub(crate) struct Cli {
    /// Profile of the configuration file, for commands that use a running service.
    #[arg(long, value_name = "NAME", global = true)]
    pub profile: Option<String>,

    /// The configuration file.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of the program.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the service.
    Serve(Box<Serve>),
    /// Migrate the database to this release's schema, and exit.
    Migrate(Migrate),
    /// Tools for credentials: make and check tokens and keys.
    #[command(subcommand)]
    Auth(Auth),
    /// The commands that are clients of a running service.
    #[command(flatten)]
    Client(Box<cli::Command>),
}

impl Cli {
    /// Parses the arguments of the program, and exits with a message if they are wrong.
    #[must_use]
    pub(crate) fn of_program() -> Self {
        let this = Self::parse();
        let has_profile = this.profile.is_some() || this.config.is_some();
        if has_profile && !matches!(this.command, Command::Client(_)) {
            let what = "--profile and --config are for commands that use a running service";
            let kind = clap::error::ErrorKind::ArgumentConflict;
            Self::command().error(kind, what).exit();
        }
        this
    }
}

/// Settings of `voicecall serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address to listen on. Any address but a loopback one needs TLS and a way to authenticate
    /// clients, or the --insecure flags, which allow running without them.
    #[arg(
        long,
        env = "VOICECALL_LISTEN",
        default_value = "127.0.0.1:50051",
        value_name = "HOST:PORT"
    )]
    pub listen: SocketAddr,

    /// The database.
    #[command(flatten)]
    pub database: Database,

    /// Only check the schema at startup, and exit if migrations are missing.
    #[arg(long, env = "VOICECALL_NO_MIGRATE")]
    pub no_migrate: bool,

    /// Largest request, in bytes.
    #[arg(long, env = "VOICECALL_MAX_REQUEST_BYTES", default_value_t = 4 * 1024 * 1024, value_name = "BYTES")]
    pub max_request_bytes: usize,

    /// Compress responses with gzip for clients that accept it: less traffic for more
    /// processor time. Compressed requests are always accepted.
    #[arg(long, env = "VOICECALL_COMPRESS_RESPONSES")]
    pub compress_responses: bool,

    /// Concurrent requests, of which one connection may have a quarter, and no more than are
    /// free; more are refused with
    /// RESOURCE_EXHAUSTED.
    #[arg(
        long,
        env = "VOICECALL_MAX_CONCURRENT_REQUESTS",
        default_value_t = 1024,
        value_name = "COUNT"
    )]
    pub max_concurrent_requests: usize,

    /// Concurrent watches; more are refused with RESOURCE_EXHAUSTED.
    #[arg(
        long,
        env = "VOICECALL_MAX_WATCHES",
        default_value_t = 20_000,
        value_name = "COUNT"
    )]
    pub max_watches: usize,

    /// Concurrent imports, exports and requests for statistics; more are refused with
    /// RESOURCE_EXHAUSTED.
    #[arg(
        long,
        env = "VOICECALL_MAX_TRANSFERS",
        default_value_t = 32,
        value_name = "COUNT"
    )]
    pub max_transfers: usize,

    /// Snapshots that watches may read at once; more wait in line, first come, first served.
    #[arg(
        long,
        env = "VOICECALL_MAX_SNAPSHOTS",
        default_value_t = 16,
        value_name = "COUNT"
    )]
    pub max_snapshots: usize,

    /// Memory for recent changes, in bytes. Watchers that have fallen further behind read the
    /// database.
    #[arg(
        long,
        env = "VOICECALL_FEED_MEMORY",
        default_value_t = 32 * 1024 * 1024,
        value_name = "BYTES"
    )]
    pub feed_memory: usize,

    /// Threads that serve connections, each with its own database connection for look-ups.
    /// Default: one per processor, at most 8.
    #[arg(long, env = "VOICECALL_WORKERS", value_name = "COUNT")]
    pub workers: Option<NonZeroUsize>,

    /// Concurrent client connections. When there are more, the address with the most connections
    /// loses some, idle ones first; if it has no idle ones, its new connections are closed at once.
    #[arg(
        long,
        env = "VOICECALL_MAX_CONNECTIONS",
        default_value_t = 1024,
        value_name = "COUNT"
    )]
    pub max_connections: usize,

    /// Age at which a client connection is closed, in seconds, give or take 10 %; 0: never.
    /// Its watches end with a checkpoint, to be resumed on another connection, and other
    /// requests have 30 s to end.
    #[arg(
        long,
        env = "VOICECALL_MAX_CONNECTION_AGE",
        default_value_t = 30 * 60,
        value_name = "SECONDS"
    )]
    pub max_connection_age: u64,

    /// Writes waiting for a commit; more are refused with RESOURCE_EXHAUSTED.
    #[arg(
        long,
        env = "VOICECALL_WRITE_QUEUE",
        default_value_t = 4096,
        value_name = "COUNT"
    )]
    pub write_queue: usize,

    /// Look-ups waiting in each thread; more are refused with RESOURCE_EXHAUSTED.
    #[arg(
        long,
        env = "VOICECALL_READ_QUEUE",
        default_value_t = 4096,
        value_name = "COUNT"
    )]
    pub read_queue: usize,

    /// Database connections for lists, and as many again for lists with simple filters. They
    /// are opened when needed and divided among the threads, at least one for each. Writes,
    /// look-ups, statistics, snapshots, exports and the feed have their own connections.
    #[arg(
        long,
        env = "VOICECALL_LIST_CONNECTIONS",
        default_value_t = 4,
        value_name = "COUNT"
    )]
    pub list_connections: usize,

    /// Database connections for statistics; more requests for statistics wait for one.
    #[arg(
        long,
        env = "VOICECALL_STATISTICS_CONNECTIONS",
        default_value_t = 2,
        value_name = "COUNT"
    )]
    pub statistics_connections: usize,

    /// Minimum time that changes are kept in the log, in seconds. A client that was disconnected
    /// for longer has to start again with a snapshot. Changes are dropped a whole partition at a
    /// time. The default is seven days.
    #[arg(
        long,
        env = "VOICECALL_LOG_RETENTION",
        default_value_t = 7 * 24 * 3600,
        value_name = "SECONDS"
    )]
    pub log_retention: u64,

    /// Changes per partition of the log. Old changes are dropped a whole partition at a time.
    #[arg(
        long,
        env = "VOICECALL_LOG_PARTITION",
        default_value_t = 20_000_000,
        value_name = "COUNT",
        value_parser = clap::value_parser!(i64).range(1_000..=1_000_000_000_000)
    )]
    pub log_partition: i64,

    /// How long requests in progress may take to end after SIGTERM, in seconds.
    #[arg(
        long,
        env = "VOICECALL_DRAIN_TIMEOUT",
        default_value_t = 10,
        value_name = "SECONDS"
    )]
    pub drain_timeout: u64,

    /// Format of the log lines.
    #[arg(
        long,
        env = "VOICECALL_LOG_FORMAT",
        default_value = "human",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,

    /// TLS and credentials.
    #[command(flatten)]
    pub security: Security,

    /// The limits of each principal.
    #[command(flatten)]
    pub principal: PrincipalLimits,

    /// What to log: a level (error, warn, info, debug or trace), also per module
    /// (`info,voicecall::store=debug`).
    #[arg(
        long,
        env = "VOICECALL_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log: String,
}

/// Settings of `voicecall migrate`.
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// URL of the database, as for `serve`.
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        required_unless_present = "database_url_file"
    )]
    pub database_url: Option<String>,

    /// File that holds the URL.
    #[arg(
        long,
        env = "DATABASE_URL_FILE",
        value_name = "FILE",
        conflicts_with = "database_url"
    )]
    pub database_url_file: Option<PathBuf>,
}

/// The database that holds the calls.
#[derive(Debug, Args)]
pub(crate) struct Database {
    /// PostgreSQL to use, version 14 or later: postgres://user:password@host/database.
    /// Several hosts may be named (host1,host2): the primary among them is used.
    /// With ?sslmode=verify-full&sslrootcert=FILE the connection is encrypted and the server
    /// is verified. The other modes, sslcert and sslkey work as in libpq; the default mode is
    /// prefer. If unset, an embedded PostgreSQL runs from the server programs on this machine.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// File that holds the URL of the database, which may contain a password.
    #[arg(
        long,
        env = "DATABASE_URL_FILE",
        value_name = "FILE",
        conflicts_with = "database_url"
    )]
    pub database_url_file: Option<PathBuf>,

    /// Data directory of the embedded PostgreSQL. Default: /var/lib/voicecall as root,
    /// otherwise ~/.local/share/voicecall.
    #[arg(long, env = "VOICECALL_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Directory of the PostgreSQL server programs. Default: the newest that is found.
    #[arg(long, env = "VOICECALL_POSTGRES_BIN_DIR", value_name = "DIR")]
    pub postgres_bin_dir: Option<PathBuf>,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Text for people.
    Human,
    /// JSON Lines.
    Json,
}

impl Database {
    /// The URL of the database, from wherever it is; `None` for the embedded one.
    ///
    /// # Errors
    /// The file cannot be read; a message for the operator.
    pub(crate) fn url(&self) -> Result<Option<String>, String> {
        url(
            self.database_url.as_deref(),
            self.database_url_file.as_ref(),
        )
    }

    /// The settings of the embedded PostgreSQL.
    #[must_use]
    pub(crate) fn embedded(&self) -> postgres::Settings {
        postgres::Settings {
            data_dir: self.data_dir.clone(),
            bin_dir: self.postgres_bin_dir.clone(),
            ..postgres::Settings::default()
        }
    }
}

impl Migrate {
    /// The URL of the database, from wherever it is.
    ///
    /// # Errors
    /// The file cannot be read; a message for the operator.
    pub(crate) fn url(&self) -> Result<String, String> {
        let url = url(
            self.database_url.as_deref(),
            self.database_url_file.as_ref(),
        )?;
        Ok(url.unwrap_or_default())
    }
}

fn url(url: Option<&str>, file: Option<&PathBuf>) -> Result<Option<String>, String> {
    let Some(file) = file else {
        return Ok(url.map(str::to_owned));
    };
    let text = fs::read_to_string(file);
    let text = text.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(Some(text.trim().to_owned()))
}

impl Serve {
    /// The server's settings.
    #[must_use]
    pub(crate) fn server(&self) -> server::Settings {
        server::Settings {
            api: api::Limits {
                max_request_bytes: self.max_request_bytes,
                compress_responses: self.compress_responses,
                max_concurrent_requests: self.max_concurrent_requests,
                max_watches: self.max_watches,
                max_transfers: self.max_transfers,
                principal: self.principal.limits(),
            },
            feed: feed::Limits {
                memory_bytes: self.feed_memory,
                max_snapshots: self.max_snapshots.max(1),
            },
            store: store::Limits {
                write_queue: self.write_queue.max(1),
                reads: store::ReadLimits {
                    lookup_queue: self.read_queue.max(1),
                    list_connections: self.list_connections.max(1),
                    statistics_connections: self.statistics_connections.max(1),
                    planned_once_from: store::PLANNED_ONCE_FROM,
                },
                retention: store::Retention {
                    keep: Duration::from_secs(self.log_retention),
                    partition_len: self.log_partition,
                },
            },
            workers: self.workers.unwrap_or_else(default_workers),
            connections: server::ConnectionLimits {
                max: self.max_connections.max(1),
                handshake_timeout: HANDSHAKE_TIMEOUT,
                max_age: (self.max_connection_age > 0)
                    .then(|| Duration::from_secs(self.max_connection_age)),
                grace: CONNECTION_GRACE,
            },
            migrate: !self.no_migrate,
            drain_timeout: Duration::from_secs(self.drain_timeout),
        }
    }
}

/// One per processor, up to the limit.
fn default_workers() -> NonZeroUsize {
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(processors.min(MAX_DEFAULT_WORKERS)).unwrap_or(NonZeroUsize::MIN)
}
