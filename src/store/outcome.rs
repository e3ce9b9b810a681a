//! What became of a commit whose connection broke: found out, never guessed.
//!
//! Every batch has a random stamp in its entries of the change log. Once the
//! backend that had the batch is gone, the log says whether it was committed -
//! provided that it is the same log: after a failover that lost its tail nobody
//! can say.

use std::time::Duration;

use diesel::{
    OptionalExtension, QueryResult, QueryableByName,
    data_types::PgTimestamp,
    pg::sql_types::Timestamptz,
    sql_query,
    sql_types::{BigInt, Bool, Integer, Nullable, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tokio::time::{Instant, sleep};

use super::{
    connection::{Connector, Role},
    row::from_sql_time,
};
use crate::domain::{Revision, Timestamp};

/// How long callers wait for the database to come back and tell.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Who a connection's backend is, and in which history of the database it lives.
#[derive(Debug, Clone, QueryableByName)]
pub(super) struct Backend {
    #[diesel(sql_type = Integer)]
    pid: i32,
    #[diesel(sql_type = Timestamptz)]
    started_at: PgTimestamp,
    #[diesel(sql_type = Text)]
    timeline: String,
}

/// What became of a commit.
#[derive(Debug)]
pub(super) enum Fate {
    /// It was committed: its changes follow `head_before`.
    Committed {
        head_before: Revision,
        committed_at: Timestamp,
    },
    /// It was not, and will not be.
    NotCommitted,
    /// Nobody can say.
    Unknown,
}

/// Asks a new connection who its backend is.
pub(super) async fn backend(connection: &mut AsyncPgConnection) -> QueryResult<Backend> {
    sql_query(
        "SELECT pid, backend_start AS started_at, \
         left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline \
         FROM pg_stat_activity WHERE pid = pg_backend_pid()",
    )
    .get_result(connection)
    .await
}

/// Finds out what became of the batch with this stamp, which `lost` had, when
/// the log was known to reach `known_head`.
pub(super) async fn find(
    connector: &Connector,
    lost: &Backend,
    stamp: i64,
    known_head: Revision,
) -> Fate {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Ok(mut connection) = connector.connect(Role::Write).await
            && let Ok(Some(fate)) = look(&mut connection, lost, stamp, known_head).await
        {
            return fate;
        }
        sleep(LOOK_EVERY).await;
    }
    Fate::Unknown
}

/// One look; `None` while the lost backend still lives.
async fn look(
    connection: &mut AsyncPgConnection,
    lost: &Backend,
    stamp: i64,
    known_head: Revision,
) -> QueryResult<Option<Fate>> {
    if lives(connection, lost).await? {
        return Ok(None);
    }
    if let Some(found) = entries_with(connection, stamp, known_head).await? {
        return Ok(Some(Fate::Committed {
            head_before: found.first_revision - 1,
            committed_at: from_sql_time(found.changed_at),
        }));
    }
    let same_history = backend(connection).await?.timeline == lost.timeline
        && head(connection).await? >= known_head;
    Ok(Some(if same_history {
        Fate::NotCommitted
    } else {
        Fate::Unknown
    }))
}

#[derive(QueryableByName)]
struct Lives {
    #[diesel(sql_type = Bool)]
    lives: bool,
}

/// Whether the lost backend still runs; it is told to stop, unless it waits for
/// a standby: it has committed then, and ending it would only hide that.
async fn lives(connection: &mut AsyncPgConnection, lost: &Backend) -> QueryResult<bool> {
    let row: Option<Lives> = sql_query(
        "SELECT CASE WHEN wait_event IS DISTINCT FROM 'SyncRep' \
                THEN pg_terminate_backend(pid) OR true ELSE true END AS lives \
         FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2",
    )
    .bind::<Integer, _>(lost.pid)
    .bind::<Timestamptz, _>(lost.started_at)
    .get_result(connection)
    .await
    .optional()?;
    Ok(row.is_some_and(|row| row.lives))
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = BigInt)]
    first_revision: i64,
    #[diesel(sql_type = Timestamptz)]
    changed_at: PgTimestamp,
}

async fn entries_with(
    connection: &mut AsyncPgConnection,
    stamp: i64,
    known_head: Revision,
) -> QueryResult<Option<Found>> {
    sql_query(
        "SELECT revision AS first_revision, changed_at FROM voice_call_changes \
         WHERE revision > $1 AND stamp = $2 ORDER BY revision LIMIT 1",
    )
    .bind::<BigInt, _>(known_head)
    .bind::<BigInt, _>(stamp)
    .get_result(connection)
    .await
    .optional()
}

#[derive(QueryableByName)]
struct Head {
    #[diesel(sql_type = Nullable<BigInt>)]
    revision: Option<i64>,
}

/// The newest revision in the log; 0 when there is none.
pub(super) async fn head(connection: &AsyncPgConnection) -> QueryResult<Revision> {
    let head: Head = sql_query("SELECT max(last_revision) AS revision FROM voice_call_batches")
        .get_result(&mut &*connection)
        .await?;
    Ok(head.revision.unwrap_or(0))
}
