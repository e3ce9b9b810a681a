//! What can go wrong in the store, as its callers need to know it. What the driver says becomes
//! one of these in `database/pool` and `database/availability` for reads, and in
//! `commit/committer` for writes; its own words are logged there and go no further.
//! `api/error/status` makes statuses of them.

use crate::domain::{Revision, machine::Rejection};

/// Why a write has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The command does not fit the call's state. Nothing was written.
    #[error("{rejection}")]
    Rejected {
        /// The place of the command in its request, from 0.
        place: usize,
        /// Why.
        rejection: Rejection,
    },
    /// The request id was used for another request. Nothing was written.
    #[error("the request_id was used for another request")]
    RequestIdReused,
    /// The request was applied before, and its response has left the log.
    #[error("the request was applied, and its result is no longer in the log")]
    AnswerCompacted {
        /// How far the log reaches back.
        oldest_revision: Revision,
    },
    /// The queue is full, or PostgreSQL has no connection left. Nothing was written; retry
    /// later.
    #[error("too many writes are waiting: the server is overloaded")]
    Overloaded,
    /// The process stops. Nothing was written; retry elsewhere.
    #[error("this process is stopping")]
    Stopping,
    /// The database is unavailable. Nothing was written; retry later.
    #[error("the database is unavailable")]
    Unavailable,
    /// The connection was lost during the commit, and it could not be found out whether this was
    /// written. Retry with the same request id, or read first.
    #[error("the connection to the database broke during the commit, which may have been applied")]
    OutcomeUnknown,
    /// A bug; logged where it arose. Nothing was written.
    #[error("internal error")]
    Internal,
}

/// Why a read has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The queue is full, or PostgreSQL has no connection left; retry later.
    #[error("too many reads are waiting: the server is overloaded")]
    Overloaded,
    /// The process stops; retry elsewhere.
    #[error("this process is stopping")]
    Stopping,
    /// The database is unavailable; retry later.
    #[error("the database is unavailable")]
    Unavailable,
    /// The deadline passed.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// The read source has not reached `min_revision` in time.
    #[error("the newest revision here is {current_revision}; min_revision was not reached in time")]
    RevisionNotReached {
        /// What it has reached.
        current_revision: Revision,
    },
    /// A bug; logged where it arose.
    #[error("internal error")]
    Internal,
}

impl From<ReadError> for WriteError {
    /// A read that a write depends on failed, so nothing was written.
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Overloaded => Self::Overloaded,
            ReadError::Stopping => Self::Stopping,
            ReadError::Unavailable => Self::Unavailable,
            ReadError::DeadlineExceeded
            | ReadError::RevisionNotReached { .. }
            | ReadError::Internal => Self::Internal,
        }
    }
}

impl OpenError {
    /// What stands behind the words that all errors of its kind begin with.
    pub(super) fn reason(self) -> String {
        match self {
            Self::Connect(reason) => reason,
            other => other.to_string(),
        }
    }
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database URL is not one.
    #[error("the database URL is not valid: {0}")]
    BadUrl(String),
    /// The database cannot be reached, or refuses us.
    #[error("cannot connect to the database: {0}")]
    Connect(String),
    /// The database is there, and has no connection left for us.
    #[error(
        "PostgreSQL has no connection left: this process has {had} and may need {wanted} \
         ({reason})"
    )]
    NoConnectionLeft {
        /// How many this process has.
        had: usize,
        /// How many it may need at once.
        wanted: usize,
        /// In the words of the database.
        reason: String,
    },
    /// The database cannot hold every text.
    #[error(
        "the database encoding is {0}: create a UTF-8 database (CREATE DATABASE … ENCODING 'UTF8' \
         TEMPLATE template0)"
    )]
    Encoding(String),
    /// A migration failed.
    #[error("cannot migrate the database: {0}")]
    Migrate(String),
    /// The database was migrated by a newer release.
    #[error(
        "the database has migration {0}, which this release does not know: the release is older \
         than the database"
    )]
    NewerDatabase(String),
    /// The database was made by a program from before the first release.
    #[error(
        "the database has a schema from before the first release, which cannot be migrated \
         (its migration {0} is unknown here): export its calls with the program that created it \
         (`voicecall export`), and import them into a new database with this one \
         (`voicecall import`)"
    )]
    PrereleaseDatabase(String),
    /// Migrations are missing, and running them was not asked for.
    #[error("{0} migrations have not been run: run `voicecall migrate`")]
    NotMigrated(usize),
    /// PostgreSQL hashes texts in another way than when these indexes were built.
    #[error(
        "this PostgreSQL release hashes texts differently from the one that built the indexes {0}: \
         run `voicecall migrate` to rebuild them"
    )]
    StaleIndexes(String),
}
