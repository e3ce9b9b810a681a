//! The partitions of the change log: made ahead, by ranges of revisions, and
//! dropped when all in them is past the retention, and with them the batches of their changes.

use std::time::Duration;

use diesel::{
    QueryResult, QueryableByName,
    pg::sql_types::Timestamptz,
    sql_query,
    sql_types::{BigInt, Bool},
};
use tracing::info;

use super::partitions::{self, Link};
use crate::{
    domain::{Revision, Timestamp},
    store::{change_log::log, database::Session, values::to_sql_time},
};

const TABLE: &str = "voice_call_changes";
/// Partitions ahead of the head. With the default length they take an hour of
/// writes at 20,000 a second.
const AHEAD: Revision = 4;
/// Batches that one statement forgets.
const FORGET_BATCHES: i64 = 10_000;
/// Longer than anybody waits, and short enough to count with.
const MAX_KEEP: Duration = Duration::from_secs(1000 * 365 * 24 * 3600);

/// How the change log is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// How long changes are kept, at least.
    pub keep: Duration,
    /// Changes in a partition, the unit in which they go.
    pub partition_len: Revision,
}

#[derive(Debug)]
struct Partition {
    own: partitions::Partition,
    from: Revision,
    to: Revision,
}

/// Makes the partitions that commits need next; returns the revision from which on more
/// are to be made.
pub(crate) async fn make(session: &Session, retention: Retention) -> QueryResult<Revision> {
    let head = log::head(session).await?;
    let partitions = all(session).await?;
    let mut end = partitions
        .iter()
        .filter(|one| one.own.link == Link::Attached)
        .map(|one| one.to)
        .max()
        .unwrap_or(1);
    while end - head <= AHEAD * retention.partition_len {
        let next = end + retention.partition_len;
        let name = format!("{TABLE}_{end:016}_{next:016}");
        let bounds = (end.to_string(), next.to_string());
        let bounds = (bounds.0.as_str(), bounds.1.as_str());
        partitions::make(session, TABLE, &name, "revision", bounds).await?;
        end = next;
    }
    Ok(end - AHEAD * retention.partition_len)
}

/// Drops those that are past the retention at `now`.
pub(crate) async fn drop_expired(
    session: &Session,
    retention: Retention,
    now: Timestamp,
) -> QueryResult<()> {
    let head = log::head(session).await?;
    let mut partitions = all(session).await?;
    partitions.sort_unstable_by_key(|one| one.from);
    let mut expired = Vec::new();
    for partition in partitions {
        if partition.to > head || !is_expired(session, &partition, retention.keep, now).await? {
            break;
        }
        expired.push(partition);
    }
    let Some(floor) = expired.last().map(|last| last.to) else {
        return Ok(());
    };
    // The floor is raised before anything is dropped, so that no reader counts on what goes.
    let update = sql_query("UPDATE feed SET oldest_revision = $1 WHERE oldest_revision < $1");
    session.execute(update.bind::<BigInt, _>(floor)).await?;
    for partition in &expired {
        partitions::drop_partition(session, TABLE, &partition.own).await?;
    }
    forget_batches(session, floor).await?;
    info!(
        oldest_revision = floor,
        "dropped changes that had reached the end of their retention"
    );
    Ok(())
}

#[derive(QueryableByName)]
struct Expired {
    #[diesel(sql_type = Bool)]
    expired: bool,
}

/// Whether the partition's last change is past keeping.
async fn is_expired(
    session: &Session,
    partition: &Partition,
    keep: Duration,
    now: Timestamp,
) -> QueryResult<bool> {
    let query = sql_query(
        "SELECT committed_at < $3 - $2 * interval '1 second' AS expired \
         FROM voice_call_batches WHERE last_revision >= $1 ORDER BY last_revision LIMIT 1",
    )
    .bind::<BigInt, _>(partition.to - 1)
    .bind::<BigInt, _>(i64::try_from(keep.min(MAX_KEEP).as_secs()).unwrap_or(i64::MAX))
    .bind::<Timestamptz, _>(to_sql_time(now));
    let row: Option<Expired> = session.optional_row(query).await?;
    Ok(row.is_some_and(|row| row.expired))
}

/// Drops the batches that no position within reach belongs to, a few at a time.
async fn forget_batches(session: &Session, floor: Revision) -> QueryResult<()> {
    loop {
        let delete = sql_query(
            "DELETE FROM voice_call_batches WHERE last_revision IN ( \
                SELECT last_revision FROM voice_call_batches WHERE last_revision < $1 \
                ORDER BY last_revision LIMIT $2 \
             )",
        )
        .bind::<BigInt, _>(floor)
        .bind::<BigInt, _>(FORGET_BATCHES);
        if session.execute(delete).await? == 0 {
            return Ok(());
        }
    }
}

async fn all(session: &Session) -> QueryResult<Vec<Partition>> {
    let pattern = format!("{TABLE}_[0-9]{{16}}_[0-9]{{16}}");
    let partitions = partitions::of(session, TABLE, &pattern).await?;
    let parse = |own: partitions::Partition| {
        let range = own.name.strip_prefix(TABLE)?.strip_prefix('_')?;
        let (from, to) = range.split_once('_')?;
        let (from, to) = (from.parse().ok()?, to.parse().ok()?);
        Some(Partition { own, from, to })
    };
    Ok(partitions.into_iter().filter_map(parse).collect())
}
