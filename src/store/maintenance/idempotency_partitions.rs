//! The partitions of the idempotency records: six hours each, made a day ahead, and dropped
//! when they are past keeping.

use std::{collections::BTreeSet, time::Instant};

use diesel::{
    QueryResult, QueryableByName, data_types::PgTimestamp, pg::sql_types::Timestamptz, sql_query,
    sql_types::Nullable,
};

use super::partitions::{self, Link, Partition};
use crate::{
    domain::Timestamp,
    store::{
        database::{Clock, Session},
        values::from_sql_time,
    },
};

const TABLE: &str = "idempotency_records";
const SPAN_MICROS: i64 = SPAN_SECONDS * 1_000_000;
const SPAN_SECONDS: i64 = 6 * 3600;
/// Partitions made ahead: a day.
const AHEAD: i64 = 4;
/// Partitions kept behind: the day that request IDs are kept, and the slot that is begun.
const BEHIND: i64 = 5;

#[derive(QueryableByName)]
struct Times {
    #[diesel(sql_type = Timestamptz)]
    clock: PgTimestamp,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    log_time: Option<PgTimestamp>,
}

/// Makes the partitions that commits may need from now on: they go by the time of the log,
/// which may be ahead of the clock. The clock takes note of what it and the database's say.
pub(crate) async fn make(session: &Session, clock: &Clock) -> QueryResult<()> {
    let query = sql_query(
        "SELECT clock_timestamp() AS clock, ( \
            SELECT greatest(committed_at, confirmed_at) FROM voice_call_batches \
            ORDER BY last_revision DESC LIMIT 1 \
         ) AS log_time",
    );
    let asked_at = Instant::now();
    let times: Times = session.row(query).await?;
    let log_time = times.log_time.map(from_sql_time);
    // In this order: the clock is compared with the log's time.
    if let Some(log_time) = log_time {
        clock.log_says(log_time);
    }
    clock.database_says(from_sql_time(times.clock), asked_at);
    let now = clock.log_now();
    let starts = [Some(now), log_time].into_iter().flatten().map(slot);
    let slots: BTreeSet<i64> = starts.flat_map(|start| start..=start + AHEAD).collect();
    let partitions = all(session).await?;
    for slot in slots {
        let name = name(slot);
        let is_there = |one: &Partition| one.name == name && one.link == Link::Attached;
        if !partitions.iter().any(is_there) {
            let bound = |slot: i64| format!("to_timestamp({})", slot * SPAN_SECONDS);
            let bounds = (bound(slot), bound(slot + 1));
            let bounds = (bounds.0.as_str(), bounds.1.as_str());
            partitions::make(session, TABLE, &name, "recorded_at", bounds).await?;
        }
    }
    Ok(())
}

/// Drops those that are past keeping; an error of one does not keep the others.
pub(crate) async fn drop_expired(session: &Session, now: Timestamp) -> QueryResult<()> {
    let oldest_kept = name(slot(now) - BEHIND);
    let mut result = Ok(());
    for partition in all(session).await? {
        if partition.name < oldest_kept {
            let dropped = partitions::drop_partition(session, TABLE, &partition).await;
            result = result.and(dropped);
        }
    }
    result
}

async fn all(session: &Session) -> QueryResult<Vec<Partition>> {
    partitions::of(session, TABLE, "idempotency_records_slot_[0-9]{8}").await
}

fn slot(time: Timestamp) -> i64 {
    time.micros().div_euclid(SPAN_MICROS)
}

/// Slots have a fixed number of digits, so that names sort as slots do.
fn name(slot: i64) -> String {
    format!("idempotency_records_slot_{slot:08}")
}
