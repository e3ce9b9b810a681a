//! Every setting: its flag, its environment variable, its unit and its default.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, thread, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{api, cli, feed, postgres, server, store};

/// Threads that serve connections by default, at most: what one can do is more than
/// PostgreSQL does for it with several processors.
const MAX_DEFAULT_WORKERS: usize = 8;

/// The call-record service: gRPC on PostgreSQL.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, after_help = cli::EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service.
    Serve(Box<Serve>),
    /// Bring the database to this release's schema, and end.
    Migrate(Migrate),
    /// Ask a running service.
    #[command(flatten)]
    Client(Box<cli::Command>),
}

/// Settings of `voicecall serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on. Anything but loopback needs --insecure.
    #[arg(
        long,
        env = "VOICECALL_LISTEN",
        default_value = "127.0.0.1:50051",
        value_name = "HOST:PORT"
    )]
    pub listen: SocketAddr,

    /// Serve plaintext without authentication on an address that others reach.
    #[arg(long, env = "VOICECALL_INSECURE")]
    pub insecure: bool,

    /// Where the calls are kept.
    #[command(flatten)]
    pub database: Database,

    /// Do not migrate the database at start; refuse to serve if it lacks migrations.
    #[arg(long, env = "VOICECALL_NO_MIGRATE")]
    pub no_migrate: bool,

    /// Largest request, in bytes.
    #[arg(long, env = "VOICECALL_MAX_REQUEST_BYTES", default_value_t = 4 * 1024 * 1024, value_name = "BYTES")]
    pub max_request_bytes: usize,

    /// Requests under way at once; more are answered with RESOURCE_EXHAUSTED.
    #[arg(
        long,
        env = "VOICECALL_MAX_CONCURRENT_REQUESTS",
        default_value_t = 1024,
        value_name = "COUNT"
    )]
    pub max_concurrent_requests: usize,

    /// Watches open at once; more are answered with RESOURCE_EXHAUSTED.
    #[arg(
        long,
        env = "VOICECALL_MAX_WATCHES",
        default_value_t = 20_000,
        value_name = "COUNT"
    )]
    pub max_watches: usize,

    /// Imports and exports open at once; more are answered with RESOURCE_EXHAUSTED.
    #[arg(
        long,
        env = "VOICECALL_MAX_TRANSFERS",
        default_value_t = 32,
        value_name = "COUNT"
    )]
    pub max_transfers: usize,

    /// Memory for recent changes, in bytes; watchers that are further behind read the database.
    #[arg(
        long,
        env = "VOICECALL_FEED_MEMORY",
        default_value_t = 32 * 1024 * 1024,
        value_name = "BYTES"
    )]
    pub feed_memory: usize,

    /// Threads that serve connections, each with a database connection for look-ups.
    /// Default: one for each processor, at most 8.
    #[arg(long, env = "VOICECALL_WORKERS", value_name = "COUNT")]
    pub workers: Option<NonZeroUsize>,

    /// Client connections at once; more wait to be accepted.
    #[arg(
        long,
        env = "VOICECALL_MAX_CONNECTIONS",
        default_value_t = 1024,
        value_name = "COUNT"
    )]
    pub max_connections: usize,

    /// Writes waiting for the writer; more are answered with RESOURCE_EXHAUSTED.
    #[arg(
        long,
        env = "VOICECALL_WRITE_QUEUE",
        default_value_t = 4096,
        value_name = "COUNT"
    )]
    pub write_queue: usize,

    /// Reads by uid waiting in one of the threads; more are answered with RESOURCE_EXHAUSTED.
    #[arg(
        long,
        env = "VOICECALL_READ_QUEUE",
        default_value_t = 4096,
        value_name = "COUNT"
    )]
    pub read_queue: usize,

    /// Database connections for lists, and as many for lists with plain filters, opened
    /// when they are needed and divided among the threads, at least one for each;
    /// writes, look-ups and the feed have their own.
    #[arg(
        long,
        env = "VOICECALL_LIST_CONNECTIONS",
        default_value_t = 4,
        value_name = "COUNT"
    )]
    pub list_connections: usize,

    /// How long changes are kept in the log, at least, in seconds: clients that come back later
    /// have to start anew. They go a whole partition at a time. Default: seven days.
    #[arg(
        long,
        env = "VOICECALL_LOG_RETENTION",
        default_value_t = 7 * 24 * 3600,
        value_name = "SECONDS"
    )]
    pub log_retention: u64,

    /// Changes in a partition of the log.
    #[arg(
        long,
        env = "VOICECALL_LOG_PARTITION",
        default_value_t = 20_000_000,
        value_name = "COUNT",
        value_parser = clap::value_parser!(i64).range(1_000..)
    )]
    pub log_partition: i64,

    /// Time for requests under way to end after SIGTERM, in seconds.
    #[arg(
        long,
        env = "VOICECALL_DRAIN_TIMEOUT",
        default_value_t = 10,
        value_name = "SECONDS"
    )]
    pub drain_timeout: u64,

    /// Log lines for people or for machines.
    #[arg(
        long,
        env = "VOICECALL_LOG_FORMAT",
        default_value = "human",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,

    /// What to log: a level (error, warn, info, debug, trace), also by module.
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
pub struct Migrate {
    /// The database's URL, as for `serve`.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: String,
}

/// Where the calls are kept.
#[derive(Debug, Args)]
pub struct Database {
    /// PostgreSQL to use, version 14 or later: postgres://user:password@host/database.
    /// Several hosts may be named (host1,host2): the primary among them is used.
    /// With ?sslmode=verify-full&sslrootcert=FILE the connection is encrypted and the server
    /// verified; the other modes, sslcert and sslkey are libpq's, and the default is prefer.
    /// Unset: run an embedded PostgreSQL, from the machine's server binaries.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// Directory of the embedded PostgreSQL. Default: /var/lib/voicecall as root, else
    /// ~/.local/share/voicecall.
    #[arg(long, env = "VOICECALL_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Directory of the PostgreSQL server binaries. Default: the newest that is found.
    #[arg(long, env = "VOICECALL_POSTGRES_BIN_DIR", value_name = "DIR")]
    pub postgres_bin_dir: Option<PathBuf>,
}

/// What log lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// JSON Lines.
    Json,
}

impl Database {
    /// The settings of the embedded PostgreSQL.
    #[must_use]
    pub fn embedded(&self) -> postgres::Settings {
        postgres::Settings {
            data_dir: self.data_dir.clone(),
            bin_dir: self.postgres_bin_dir.clone(),
            ..postgres::Settings::default()
        }
    }
}

impl Serve {
    /// The server's settings.
    #[must_use]
    pub fn server(&self) -> server::Settings {
        server::Settings {
            api: api::Limits {
                max_request_bytes: self.max_request_bytes,
                max_concurrent_requests: self.max_concurrent_requests,
                max_watches: self.max_watches,
                max_transfers: self.max_transfers,
            },
            feed: feed::Limits {
                memory_bytes: self.feed_memory,
            },
            store: store::Limits {
                write_queue: self.write_queue.max(1),
                reads: store::ReadLimits {
                    lookup_queue: self.read_queue.max(1),
                    list_connections: self.list_connections.max(1),
                    planned_once_from: store::PLANNED_ONCE_FROM,
                },
                retention: store::Retention {
                    keep: Duration::from_secs(self.log_retention),
                    partition_len: self.log_partition,
                },
            },
            workers: self.workers.unwrap_or_else(default_workers),
            max_connections: self.max_connections.max(1),
            migrate: !self.no_migrate,
            drain_timeout: Duration::from_secs(self.drain_timeout),
        }
    }
}

/// One for each processor.
fn default_workers() -> NonZeroUsize {
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(processors.min(MAX_DEFAULT_WORKERS)).unwrap_or(NonZeroUsize::MIN)
}
