//! The partitions of the request records: six hours each, made a day ahead and
//! dropped when they are past keeping; and those of the change log
//! (`log_partitions`). One replica at a time looks after them.
//!
//! None of it stops a writer: a partition is made beside the table and attached,
//! and detached concurrently before it is dropped, because the plain forms of
//! either lock the whole table.

use std::time::Duration;

use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{BigInt, Bool, Text},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    database::{Availability, Connector, Role, Session},
    log_partitions::{self, Retention},
};

const CHECK_EVERY: Duration = Duration::from_secs(60);
const MIN_CHECK_EVERY: Duration = Duration::from_millis(200);
const RETRY_AFTER: Duration = Duration::from_secs(5);
const SPAN_SECONDS: i64 = 6 * 3600;
/// Partitions made ahead: a day.
const AHEAD: i64 = 4;
/// Partitions kept behind: the day that request ids are kept, and a rest.
const BEHIND: i64 = 5;

const TRY_LOCK: &str = "SELECT pg_try_advisory_lock(8642101, 3) AS held";
const UNLOCK: &str = "SELECT pg_advisory_unlock(8642101, 3)";

#[derive(QueryableByName)]
struct Held {
    #[diesel(sql_type = Bool)]
    held: bool,
}

#[derive(QueryableByName)]
struct Slot {
    #[diesel(sql_type = BigInt)]
    slot: i64,
}

#[derive(QueryableByName)]
struct Partition {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Bool)]
    attached: bool,
}

/// Keeps the partitions: owned by the store, ends with `stop`.
pub(super) async fn keep(
    connector: Connector,
    availability: Availability,
    retention: Retention,
    stop: CancellationToken,
) {
    // A short retention wants to be looked after more often.
    let check_every = CHECK_EVERY.min(retention.keep / 4).max(MIN_CHECK_EVERY);
    loop {
        let pause = match tend(&connector, retention).await {
            Ok(()) => check_every,
            Err(error) => {
                if availability.is_up() {
                    warn!(%error, "cannot tend the partitions; trying again");
                }
                RETRY_AFTER
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Makes and drops partitions once, unless another replica is at it.
pub(super) async fn tend(connector: &Connector, retention: Retention) -> Result<(), String> {
    let session = connector
        .connect(Role::Maintain)
        .await
        .map_err(|error| error.to_string())?;
    tend_on(&session, retention)
        .await
        .map_err(|error| error.to_string())
}

async fn tend_on(session: &Session, retention: Retention) -> QueryResult<()> {
    let present = current_slot(session).await?;
    let lock: Held = session.row(sql_query(TRY_LOCK)).await?;
    if !lock.held {
        return Ok(());
    }
    let partitions = partitions(session).await?;
    for slot in present..=present + AHEAD {
        let name = name(slot);
        if !partitions
            .iter()
            .any(|one| one.name == name && one.attached)
        {
            make(session, slot).await?;
        }
    }
    let oldest_kept = name(present - BEHIND);
    for Partition { name, attached } in &partitions {
        if *name < oldest_kept {
            drop_partition(session, "request_records", name, *attached).await?;
        }
    }
    log_partitions::tend(session, retention).await?;
    session.batch(UNLOCK).await
}

async fn current_slot(session: &Session) -> QueryResult<i64> {
    let query =
        format!("SELECT (extract(epoch FROM clock_timestamp())::bigint / {SPAN_SECONDS}) AS slot");
    let row: Slot = session.row(sql_query(query)).await?;
    Ok(row.slot)
}

async fn partitions(session: &Session) -> QueryResult<Vec<Partition>> {
    let query = sql_query(
        "SELECT c.relname::text AS name, i.inhrelid IS NOT NULL AND NOT i.inhdetachpending AS attached \
         FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid \
         WHERE c.relkind = 'r' AND c.relname LIKE 'request_records_slot_%' \
         AND c.relnamespace = \
             (SELECT relnamespace FROM pg_class WHERE oid = 'request_records'::regclass)",
    );
    session.rows(query).await
}

/// Slots have a fixed number of digits, so that names sort as slots do.
fn name(slot: i64) -> String {
    format!("request_records_slot_{slot:08}")
}

async fn make(session: &Session, slot: i64) -> QueryResult<()> {
    let name = name(slot);
    let from = format!("to_timestamp({})", slot * SPAN_SECONDS);
    let to = format!("to_timestamp({})", (slot + 1) * SPAN_SECONDS);
    session
        .batch(&format!(
            "CREATE TABLE IF NOT EXISTS {name} (LIKE request_records INCLUDING ALL); \
             ALTER TABLE {name} DROP CONSTRAINT IF EXISTS {name}_span; \
             ALTER TABLE {name} ADD CONSTRAINT {name}_span \
                 CHECK (recorded_at >= {from} AND recorded_at < {to}); \
             ALTER TABLE request_records ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to}); \
             ALTER TABLE {name} DROP CONSTRAINT {name}_span;"
        ))
        .await
}

/// Drops a partition of `table` without locking the table against writers.
pub(super) async fn drop_partition(
    session: &Session,
    table: &str,
    name: &str,
    attached: bool,
) -> QueryResult<()> {
    if attached {
        session
            .batch(&format!(
                "ALTER TABLE {table} DETACH PARTITION {name} CONCURRENTLY"
            ))
            .await?;
    }
    session.batch(&format!("DROP TABLE {name}")).await
}
