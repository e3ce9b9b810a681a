//! Advisory locks. Each schema is an installation of its own, with locks of its own: two in
//! one database do not wait for each other.

use diesel::{QueryResult, QueryableByName, sql_query, sql_types::Bool};

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

    /// The lock as the arguments of PostgreSQL's functions.
    pub(in crate::store) fn arguments(self) -> String {
        format!(
            "(CASE current_schema() WHEN 'public' THEN 8642101 \
             ELSE coalesce(hashtext(current_schema()), 0) END, {})",
            self as i32
        )
    }
}
