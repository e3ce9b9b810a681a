//! The partitions of the change log: made ahead, by ranges of revisions, and
//! dropped when all in them is past the retention. None of it stops a writer.

use std::time::Duration;

use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{BigInt, Bool, Text},
};
use tracing::info;

use super::{database::Session, log, partitions::drop_partition};
use crate::domain::Revision;

/// Partitions ahead of the head. With the default length they take an hour of
/// writes at 20,000 a second.
const AHEAD: Revision = 4;
/// Batches that one statement forgets.
const FORGET_BATCHES: i64 = 10_000;

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
    name: String,
    from: Revision,
    to: Revision,
    attached: bool,
}

/// Makes and drops partitions once; whoever calls it holds the lock that lets one
/// replica at a time.
pub(super) async fn tend(session: &Session, retention: Retention) -> QueryResult<()> {
    let head = log::head(session).await?;
    let mut partitions = partitions(session).await?;
    let mut end = partitions
        .iter()
        .filter(|one| one.attached)
        .map(|one| one.to)
        .max()
        .unwrap_or(1);
    while end - head <= AHEAD * retention.partition_len {
        make(session, end, end + retention.partition_len).await?;
        end += retention.partition_len;
    }
    partitions.sort_unstable_by_key(|one| one.from);
    let mut expired = Vec::new();
    for partition in partitions {
        if partition.to > head || !is_expired(session, &partition, retention.keep).await? {
            break;
        }
        expired.push(partition);
    }
    let Some(floor) = expired.last().map(|last| last.to) else {
        return Ok(());
    };
    // First the word that they go, then the going.
    let update = sql_query("UPDATE feed SET oldest_revision = $1 WHERE oldest_revision < $1");
    session.execute(update.bind::<BigInt, _>(floor)).await?;
    for Partition { name, attached, .. } in &expired {
        drop_partition(session, "voice_call_changes", name, *attached).await?;
    }
    forget_batches(session, floor).await?;
    info!(
        oldest_revision = floor,
        "dropped changes past their retention"
    );
    Ok(())
}

#[derive(QueryableByName)]
struct Expired {
    #[diesel(sql_type = Bool)]
    expired: bool,
}

/// Whether the partition's last change is past keeping.
async fn is_expired(session: &Session, partition: &Partition, keep: Duration) -> QueryResult<bool> {
    let query = sql_query(
        "SELECT committed_at < clock_timestamp() - $2 * interval '1 second' AS expired \
         FROM voice_call_batches WHERE last_revision >= $1 ORDER BY last_revision LIMIT 1",
    )
    .bind::<BigInt, _>(partition.to - 1)
    .bind::<BigInt, _>(i64::try_from(keep.as_secs()).unwrap_or(i64::MAX));
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

#[derive(QueryableByName)]
struct Named {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Bool)]
    attached: bool,
}

async fn partitions(session: &Session) -> QueryResult<Vec<Partition>> {
    let query = sql_query(
        "SELECT c.relname::text AS name, i.inhrelid IS NOT NULL AND NOT i.inhdetachpending AS attached \
         FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid \
         WHERE c.relkind = 'r' AND c.relname ~ '^voice_call_changes_[0-9]{16}_[0-9]{16}$' \
         AND c.relnamespace = \
             (SELECT relnamespace FROM pg_class WHERE oid = 'voice_call_changes'::regclass)",
    );
    let named: Vec<Named> = session.rows(query).await?;
    let parse = |Named { name, attached }: Named| {
        let (from, to) = name.strip_prefix("voice_call_changes_")?.split_once('_')?;
        let (from, to) = (from.parse().ok()?, to.parse().ok()?);
        Some(Partition {
            name,
            from,
            to,
            attached,
        })
    };
    Ok(named.into_iter().filter_map(parse).collect())
}

async fn make(session: &Session, from: Revision, to: Revision) -> QueryResult<()> {
    let name = format!("voice_call_changes_{from:016}_{to:016}");
    session
        .batch(&format!(
            "CREATE TABLE IF NOT EXISTS {name} (LIKE voice_call_changes INCLUDING ALL); \
             ALTER TABLE {name} DROP CONSTRAINT IF EXISTS {name}_range; \
             ALTER TABLE {name} ADD CONSTRAINT {name}_range \
                 CHECK (revision >= {from} AND revision < {to}); \
             ALTER TABLE voice_call_changes ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to}); \
             ALTER TABLE {name} DROP CONSTRAINT {name}_range;"
        ))
        .await
}
