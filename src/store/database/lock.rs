//! Advisory locks. Each schema is an installation of its own, with locks of its own: two in
//! one database do not wait for each other.

use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{Bool, Integer, Nullable},
};

use super::session::Session;

/// What is locked.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum Lock {
    /// The order of commits; `commit_batch_v1` takes it too.
    Commits = 1,
    /// Migrating.
    Migrations = 2,
    /// Dropping what is past keeping.
    Drops = 3,
    /// Making partitions.
    Makes = 4,
    /// Vacuuming after purges.
    Erasure = 5,
}

/// The first key of all locks.
const INSTALLATION: &str = "CASE current_schema() WHEN 'public' THEN 8642101 \
    ELSE coalesce(hashtext(current_schema()), 0) END";

#[derive(QueryableByName)]
struct Holder {
    #[diesel(sql_type = Nullable<Integer>)]
    pid: Option<i32>,
}

#[derive(QueryableByName)]
struct Taken {
    #[diesel(sql_type = Bool)]
    taken: bool,
}

impl Lock {
    /// Takes the lock, which goes with the session, unless another session has it.
    pub(in crate::store) async fn try_take(self, session: &Session) -> QueryResult<bool> {
        let arguments = self.arguments();
        let query = sql_query(format!("SELECT pg_try_advisory_lock{arguments} AS taken"));
        let row: Taken = session.row(query).await?;
        Ok(row.taken)
    }

    /// The backend that has the lock.
    pub(in crate::store) async fn holder(self, session: &Session) -> QueryResult<Option<i32>> {
        let query = sql_query(format!(
            "SELECT (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted \
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                AND classid::bigint = ({INSTALLATION})::bigint & 4294967295 \
                AND objid::bigint = {} AND objsubid = 2) AS pid",
            self as i32
        ));
        let row: Holder = session.row(query).await?;
        Ok(row.pid)
    }

    /// The lock as the arguments of PostgreSQL's functions.
    pub(in crate::store) fn arguments(self) -> String {
        format!("({INSTALLATION}, {})", self as i32)
    }
}
