//! Why the embedded PostgreSQL cannot run. Every message says what to do, since
//! an operator reads it when the service has just refused to start.

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
        /// The oldest major version that will do.
        minimum: u32,
    },

    /// The directory that the operator named is not one of a PostgreSQL server.
    #[error("{} cannot be used for PostgreSQL's programs: {reason}", dir.display())]
    BinDir {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// There are servers, but none that reads this data.
    #[error(
        "the data was written by PostgreSQL {needed}, but only {found} was found: install it \
         (`apt-get install postgresql-{needed}`), or upgrade the data with pg_upgrade"
    )]
    WrongMajor {
        /// The major version that wrote the data.
        needed: u32,
        /// What there is.
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

    /// Root may not run PostgreSQL, and there is nobody else to.
    #[error(
        "PostgreSQL does not run as root, and this machine has neither a user `postgres` nor \
         `nobody`: create one, or start the service as an ordinary user"
    )]
    NoAccount,

    /// The account that runs PostgreSQL cannot get to where it has to.
    #[error(
        "the user `{account}`, which runs PostgreSQL, cannot enter {}: allow it \
         (`chmod o+x`), or choose a directory that it can reach",
        component.display()
    )]
    Unreachable {
        /// The user.
        account: String,
        /// The first directory on the way that is closed to it.
        component: PathBuf,
    },

    /// The cluster belongs to a user that cannot run it.
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
        /// The user who should.
        account: String,
    },

    /// There is something else where the cluster should be.
    #[error(
        "{} is neither empty nor a PostgreSQL cluster: move it away, or choose another data \
         directory",
        path.display()
    )]
    NotACluster {
        /// The directory.
        path: PathBuf,
    },

    /// One of PostgreSQL's programs failed to make the cluster.
    #[error("`{program}` could not make the database cluster ({status}): {output}")]
    Create {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
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

    /// The server neither ended nor accepted connections.
    #[error(
        "PostgreSQL did not accept connections within {minutes} minutes; its log is in {}",
        logs.display()
    )]
    StartTimeout {
        /// How long it was given, in minutes.
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

    /// The start was called off.
    #[error("the start of PostgreSQL was cancelled")]
    Cancelled,

    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as in "cannot …".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: what was tried, and on what.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Whether another attempt may succeed by itself: the processes of a server
    /// that died are still ending, or one of an earlier run came up just before ours.
    pub(super) fn is_passing(&self) -> bool {
        let Self::Ended { reason, .. } = self else {
            return false;
        };
        reason.contains("pre-existing shared memory block")
            || (reason.contains("lock file") && reason.contains("already exists"))
    }
}
