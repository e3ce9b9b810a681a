//! Why the embedded PostgreSQL cannot run. Every message says what to do, because an operator
//! reads it when the service has just failed to start.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the embedded PostgreSQL cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The machine has no PostgreSQL server that is new enough.
    #[error(
        "no PostgreSQL server ({minimum} or newer) was found on this machine: install one \
         (`apt-get install postgresql`), or set DATABASE_URL to use one that runs elsewhere"
    )]
    NoBinaries {
        /// The oldest major version that is supported.
        minimum: u32,
    },

    /// The chosen directory does not contain the programs of a PostgreSQL server.
    #[error("{} cannot be used for PostgreSQL's programs: {reason}", dir.display())]
    BinDir {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// There are servers, but none that can read the data.
    #[error(
        "the data was written by PostgreSQL {needed}, but only {found} was found: install it \
         (`apt-get install postgresql-{needed}`), or upgrade the data with pg_upgrade"
    )]
    WrongMajor {
        /// The major version that wrote the data.
        needed: u32,
        /// The newest version that was found, and its directory.
        found: String,
    },

    /// There is no default for the data directory.
    #[error(
        "there is no default data directory, since neither XDG_DATA_HOME nor HOME is set: \
         pass --data-dir, or set DATABASE_URL"
    )]
    NoHome,

    /// Another instance uses the data directory.
    #[error(
        "the data directory {} is in use by another instance of the service{}: stop that one, \
         or choose another data directory",
        data_dir.display(),
        holder.map_or_else(String::new, |pid| format!(" (process {pid})"))
    )]
    Locked {
        /// The directory.
        data_dir: PathBuf,
        /// The process that holds the lock, if it could be read.
        holder: Option<i32>,
    },

    /// PostgreSQL does not run as root, and there is no other account for it.
    #[error(
        "PostgreSQL does not run as root, and this machine has neither a user `postgres` nor \
         `nobody`: create one, or start the service as an ordinary user"
    )]
    NoAccount,

    /// The account that runs PostgreSQL cannot enter a directory.
    #[error(
        "the user `{account}`, which runs PostgreSQL, cannot enter {}: allow it \
         (`chmod o+x`), or choose a directory that it can reach",
        component.display()
    )]
    Unreachable {
        /// The user.
        account: String,
        /// The first directory on the path that it cannot enter.
        component: PathBuf,
    },

    /// A directory belongs to another user than the one that runs PostgreSQL.
    #[error(
        "{} belongs to user id {owner}, but PostgreSQL would run as `{account}`: change the owner \
         (`chown -R {account}`)",
        path.display()
    )]
    WrongOwner {
        /// The cluster, or the socket's directory.
        path: PathBuf,
        /// The user id that owns it.
        owner: u32,
        /// The user that should own it.
        account: String,
    },

    /// The directory of the cluster contains something else.
    #[error(
        "{} is neither empty nor a PostgreSQL cluster: move it away, or choose another data \
         directory",
        path.display()
    )]
    NotACluster {
        /// The directory.
        path: PathBuf,
    },

    /// One of PostgreSQL's programs failed to create the cluster.
    #[error("`{program}` could not create the database cluster ({status}): {output}")]
    Create {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The end of its output.
        output: String,
    },

    /// The server ended instead of accepting connections.
    #[error("PostgreSQL did not start ({status}): {reason}; its log is in {}", logs.display())]
    Ended {
        /// How it ended.
        status: String,
        /// The last fatal message.
        reason: String,
        /// The directory of its log.
        logs: PathBuf,
    },

    /// The server did not accept connections in time.
    #[error(
        "PostgreSQL did not accept connections within {minutes} minutes; its log is in {}",
        logs.display()
    )]
    StartTimeout {
        /// The timeout, in minutes.
        minutes: u64,
        /// The directory of its log.
        logs: PathBuf,
    },

    /// A server of an earlier run cannot be stopped.
    #[error(
        "process {pid} is a PostgreSQL server that an earlier run left on this data, and it does \
         not stop: kill it (`kill -KILL {pid}`), then start again"
    )]
    LeftOver {
        /// The server's process.
        pid: i32,
    },

    /// The start was cancelled.
    #[error("the start of PostgreSQL was cancelled")]
    Cancelled,

    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The action, as in "cannot …".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl Error {
    /// Adds the action and the path to an error, for `map_err`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Whether a retry may succeed: the processes of a server that died are still ending, or a
    /// server of an earlier run started just before this one.
    pub(super) fn is_transient(&self) -> bool {
        let Self::Ended { reason, .. } = self else {
            return false;
        };
        reason.contains("pre-existing shared memory block")
            || (reason.contains("lock file") && reason.contains("already exists"))
    }
}
