//! What a session is for, and the settings that it relies on.
//!
//! Every session sets them for itself, because a role, a database or the server's file may
//! say otherwise. They are set by statements and not at the start of the session: a
//! connection pooler between us and the database may drop those.

use std::{fmt::Write as _, time::Duration};

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Role {
    /// Commits batches. Never cancelled and without statement_timeout: a cancel
    /// during the wait for a synchronous standby commits and looks like a
    /// success. Locks and idling in a transaction have an end.
    Write,
    /// Looks up calls by uid, by one cached statement.
    Read,
    /// Lists: statements of many shapes, planned for their values.
    List,
    /// Lists of plain shapes, for each of which one index is right whatever the
    /// values, and gives the order: planned once.
    PlainList,
    /// Counts calls: statements of many shapes that may read the whole table.
    Statistics,
    /// Reads the part of the change log that is not in memory.
    Log,
    /// Follows the change log.
    Follow,
    /// Listens for notifications that there are changes.
    Listen,
    /// Sends them; they are only hints, so their commits need not be durable.
    Notify,
    /// Looks after the database: migrations, partitions, pings. What it commits need not
    /// reach a standby before it goes on, so that it never waits for one.
    Maintain,
    /// The same for VACUUM and REINDEX, which take as long as the tables are large.
    Vacuum,
}

/// For every session. A warning is how the database says that a commit has not reached its
/// standby.
const COMMON: &str = "SET client_min_messages = warning; \
    SET default_transaction_isolation = 'read committed'; \
    SET default_transaction_read_only = off; \
    SET default_transaction_deferrable = off; \
    SET idle_session_timeout = 0; \
    SET jit = off";

/// PostgreSQL 17 has one more limit, which earlier releases do not know.
const NO_TRANSACTION_TIMEOUT: &str = "SELECT set_config('transaction_timeout', '0', false) \
    WHERE current_setting('transaction_timeout', true) IS NOT NULL";

/// `remote_apply` waits for more than `on` does, all else for less.
const DURABLE_COMMITS: &str = "SELECT set_config('synchronous_commit', 'on', false) \
    WHERE current_setting('synchronous_commit') <> 'remote_apply'";

impl Role {
    pub(in crate::store) fn application_name(self) -> &'static str {
        match self {
            Self::Write => "voicecall writer",
            Self::Read => "voicecall reader",
            Self::List => "voicecall lists",
            Self::PlainList => "voicecall plain lists",
            Self::Statistics => "voicecall statistics",
            Self::Log => "voicecall log",
            Self::Follow => "voicecall follower",
            Self::Listen => "voicecall listener",
            Self::Notify => "voicecall notifier",
            Self::Maintain => "voicecall maintenance",
            Self::Vacuum => "voicecall vacuum",
        }
    }

    /// How long the database may take for a statement, by its own clock; `None`: as long as
    /// our side waits. Pools set it anew for each read.
    pub(in crate::store) fn statement_timeout(self) -> Option<Duration> {
        match self {
            Self::Write | Self::Listen | Self::Notify => None,
            Self::Read => Some(Duration::from_secs(10)),
            Self::List | Self::PlainList | Self::Statistics | Self::Log | Self::Follow => {
                Some(Duration::from_secs(3600))
            }
            Self::Maintain => Some(Duration::from_secs(60)),
            Self::Vacuum => Some(Duration::from_secs(12 * 3600)),
        }
    }

    /// How long our side waits for the end of a statement before the connection counts as
    /// lost: a little longer than the database may take.
    pub(in crate::store) fn limit(self) -> Duration {
        match self {
            // Longer than `lock_timeout`, which tells more.
            Self::Write => Duration::from_secs(6),
            Self::Listen | Self::Notify => Duration::from_secs(5),
            Self::Read
            | Self::List
            | Self::PlainList
            | Self::Statistics
            | Self::Log
            | Self::Follow
            | Self::Maintain
            | Self::Vacuum => self.statement_timeout().unwrap_or_default() + Duration::from_secs(2),
        }
    }

    /// How long a statement waits for one lock.
    fn lock_timeout(self) -> Duration {
        match self {
            Self::Write => Duration::from_secs(5),
            // What it waits for, writers may queue behind.
            Self::Maintain => Duration::from_millis(500),
            // Nobody queues behind a VACUUM that waits but other maintenance.
            Self::Vacuum => Duration::from_secs(10),
            _ => Duration::ZERO,
        }
    }

    /// Whether it leaves the last connections to what comes first.
    pub(super) fn gives_way(self) -> bool {
        matches!(
            self,
            Self::List
                | Self::PlainList
                | Self::Statistics
                | Self::Log
                | Self::Listen
                | Self::Notify
                | Self::Vacuum
        )
    }

    /// Whether a server that only follows another one will do.
    pub(super) fn needs_primary(self) -> bool {
        matches!(
            self,
            Self::Write | Self::Maintain | Self::Vacuum | Self::Notify | Self::Listen
        )
    }

    fn settings(self) -> &'static str {
        match self {
            // PL/pgSQL keeps the plans of its first calls, made when tables were
            // empty. These see to plans by index, and the commit function to it that the
            // index is looked into and not read whole.
            Self::Write => {
                "; SET idle_in_transaction_session_timeout = '10s'; \
                 SET plan_cache_mode = force_generic_plan; SET enable_indexscan = on; \
                 SET enable_seqscan = off; SET enable_bitmapscan = off; \
                 SET enable_hashjoin = off; SET enable_mergejoin = off"
            }
            Self::Read => "; SET enable_seqscan = off",
            Self::Log | Self::Follow => {
                "; SET plan_cache_mode = force_custom_plan; SET enable_seqscan = off"
            }
            Self::List | Self::Statistics => "; SET plan_cache_mode = force_custom_plan",
            Self::PlainList => {
                "; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; \
                 SET enable_bitmapscan = off"
            }
            Self::Notify => "; SET synchronous_commit = off",
            Self::Maintain => "; SET synchronous_commit = local",
            // As gentle as autovacuum is by default; what is to be vacuumed is looked up by
            // index.
            Self::Vacuum => {
                "; SET synchronous_commit = local; SET vacuum_cost_delay = '2ms'; \
                 SET vacuum_cost_limit = 200; SET enable_seqscan = off; \
                 SET enable_hashjoin = off; SET enable_mergejoin = off"
            }
            Self::Listen => "",
        }
    }

    /// The statements that set what a new session relies on.
    pub(super) fn setup(self) -> String {
        let timeout = self.statement_timeout().unwrap_or_default().as_millis();
        let lock_timeout = self.lock_timeout().as_millis();
        let mut sql = format!(
            "{COMMON}; SET statement_timeout = {timeout}; SET lock_timeout = {lock_timeout}"
        );
        sql.push_str(self.settings());
        // Writing to a string cannot fail.
        let _ = write!(sql, "; {NO_TRANSACTION_TIMEOUT}");
        if self == Self::Write {
            let _ = write!(sql, "; {DURABLE_COMMITS}");
        }
        sql
    }
}
