//! The change log, read: pages from a position on, the changes of some calls, and where the
//! log ends. That it has grown is told by `notification`.
//!
//! A position is a revision and the stamp of the batch that it belongs to. The
//! stamps are random, so a log that has another stamp there is not the log that
//! the position was taken in: its tail was lost in a failover, or an older backup
//! was restored, and other changes took the same revisions.

use diesel::{
    data_types::PgTimestamp,
    prelude::*,
    sql_query,
    sql_types::{BigInt, Nullable, Timestamptz, Uuid as SqlUuid},
};
use futures_util::future;
use tokio::time::Instant;

use crate::{
    domain::{Change, Narrowing, Revision, Timestamp, Uuid},
    store::{
        database::{Pool, Session},
        error::ReadError,
        read::narrowing_sql::may_concern,
        row::ChangeRow,
        schema::{voice_call_batches, voice_call_changes},
        values::from_sql_time,
    },
};

/// A point in the log: everything up to and including `revision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The revision; 0 is before the first change.
    pub revision: Revision,
    /// The stamp of the revision's batch; 0 for revision 0.
    pub stamp: i64,
}

/// The end of the log, and what else holds for the whole of it.
#[derive(Debug, Clone, Copy)]
pub struct Tail {
    /// Which log it is.
    pub feed_id: Uuid,
    /// The oldest point that one may resume from.
    pub oldest_revision: Revision,
    /// Where it ends.
    pub head: Position,
    /// The log's time: no change after the head is earlier, whatever the clocks do,
    /// because each commit goes on from here.
    pub read_time: Timestamp,
    /// What the database's clock says, for what it is worth.
    pub clock: Timestamp,
}

/// One entry of the log.
#[derive(Debug)]
pub struct LogEntry {
    /// What happened.
    pub change: Change,
    /// The stamp of its batch.
    pub stamp: i64,
}

/// Entries of the log, in order, and its end when they were read.
#[derive(Debug)]
pub struct LogPage {
    /// Those that follow the position.
    pub entries: Vec<LogEntry>,
    /// The end.
    pub tail: Tail,
}

/// Why the log cannot be read from a position on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The read failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What follows the position is not all there any more.
    #[error("the log only reaches back to revision {oldest_revision}")]
    Compacted {
        /// The oldest point that one may resume from.
        oldest_revision: Revision,
    },
    /// The log does not reach the position.
    #[error("the log ends at revision {head_revision}")]
    Ahead {
        /// Where it ends.
        head_revision: Revision,
    },
    /// The log is not the one that the position was taken in.
    #[error("the position belongs to another log")]
    Reset,
}

/// Reads the log. Clones share its connections.
#[derive(Clone)]
pub struct Log {
    pool: Pool,
}

impl Log {
    pub(in crate::store) fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Where the log ends.
    ///
    /// # Errors
    /// [`ReadError`], as its variants say.
    pub async fn tail(&self, deadline: Instant) -> Result<Tail, ReadError> {
        self.pool
            .run(deadline, async |session: &Session| tail(session).await)
            .await
    }

    /// The position of a revision.
    ///
    /// # Errors
    /// [`LogError`], but never [`LogError::Reset`]: a revision says nothing of
    /// the log it is of.
    pub async fn position(
        &self,
        revision: Revision,
        deadline: Instant,
    ) -> Result<Position, LogError> {
        let (tail, stamp) = self
            .pool
            .run(deadline, async |session: &Session| {
                future::try_join(tail(session), stamp(session, revision)).await
            })
            .await?;
        in_reach(revision, &tail)?;
        Ok(match stamp {
            Some(stamp) if revision > 0 => Position { revision, stamp },
            _ => Position::default(),
        })
    }

    /// The entries after a position, at most `limit`. With `max_bytes` the page ends with the
    /// entry that reaches them, so that there is one at least.
    ///
    /// # Errors
    /// [`LogError`], as its variants say.
    pub async fn after(
        &self,
        position: Position,
        limit: i64,
        max_bytes: Option<i64>,
        deadline: Instant,
    ) -> Result<LogPage, LogError> {
        let read = async || {
            self.pool
                .run(deadline, async |session: &Session| {
                    // In this order on one connection: the page's snapshot is
                    // the later one, and holds all that the tail speaks of.
                    let page = page(session, position, limit, max_bytes);
                    future::try_join(tail(session), page).await
                })
                .await
        };
        let (tail, rows) = read().await?;
        in_reach(position.revision, &tail)?;
        match follow(position, rows) {
            Some(entries) => Ok(LogPage { entries, tail }),
            None => {
                // Unless it was compacted between the two statements.
                let (tail, rows) = read().await?;
                in_reach(position.revision, &tail)?;
                let entries = follow(position, rows).ok_or(LogError::Reset)?;
                Ok(LogPage { entries, tail })
            }
        }
    }

    /// The changes of these calls after one revision and up to a position of the same log,
    /// at most `limit` of them. Those that cannot concern a caller with this narrowing are left
    /// out.
    ///
    /// # Errors
    /// [`LogError`], but never [`LogError::Ahead`].
    pub async fn of_calls(
        &self,
        uids: &[Uuid],
        narrowing: Option<&Narrowing>,
        after: Revision,
        up_to: Position,
        limit: usize,
        deadline: Instant,
    ) -> Result<Vec<Change>, LogError> {
        let changes = async |session: &Session| {
            let mut query = voice_call_changes::table
                .filter(voice_call_changes::uid.eq_any(uids))
                .filter(voice_call_changes::revision.gt(after))
                .filter(voice_call_changes::revision.le(up_to.revision))
                .order(voice_call_changes::revision)
                .limit(i64::try_from(limit).unwrap_or(i64::MAX))
                .select(ChangeRow::as_select())
                .into_boxed();
            if let Some(narrowing) = narrowing {
                query = query.filter(may_concern(narrowing));
            }
            session.rows(query).await
        };
        self.changes_in(after, up_to, changes, deadline).await
    }

    /// The changes at these revisions, in order, which are before a position of the same
    /// log.
    ///
    /// # Errors
    /// [`LogError`], but never [`LogError::Ahead`].
    pub async fn at(
        &self,
        revisions: &[Revision],
        up_to: Position,
        deadline: Instant,
    ) -> Result<Vec<Change>, LogError> {
        let changes = async |session: &Session| {
            let query = voice_call_changes::table
                .filter(voice_call_changes::revision.eq_any(revisions))
                .order(voice_call_changes::revision)
                .select(ChangeRow::as_select());
            session.rows(query).await
        };
        let oldest = revisions.iter().min().copied().unwrap_or_default();
        let changes = self.changes_in(oldest, up_to, changes, deadline).await?;
        if changes.len() != revisions.len() {
            return Err(LogError::Reset);
        }
        Ok(changes)
    }

    /// Changes of the log that has this position and no other one's, which must still
    /// reach back to a revision.
    async fn changes_in(
        &self,
        oldest: Revision,
        position: Position,
        changes: impl AsyncFnOnce(&Session) -> QueryResult<Vec<ChangeRow>> + Clone,
        deadline: Instant,
    ) -> Result<Vec<Change>, LogError> {
        let (rows, stamp, tail) = self
            .pool
            .run(deadline, async |session: &Session| {
                // In this order: a log that has the position afterwards had it before, and
                // one that reaches back so far afterwards did so before.
                future::try_join3(
                    changes.clone()(session),
                    stamp(session, position.revision),
                    tail(session),
                )
                .await
            })
            .await?;
        if oldest < tail.oldest_revision {
            return Err(LogError::Compacted {
                oldest_revision: tail.oldest_revision,
            });
        }
        if position.revision > 0 && stamp != Some(position.stamp) {
            return Err(LogError::Reset);
        }
        Ok(rows.into_iter().map(ChangeRow::into_change).collect())
    }
}

/// The end of the log in a statement's own snapshot, as a table of one row.
pub(crate) const HEAD: &str = "(SELECT coalesce(b.last_revision, 0) AS revision, \
    coalesce(b.stamp, 0) AS stamp FROM (SELECT) AS one LEFT JOIN LATERAL ( \
        SELECT last_revision, stamp FROM voice_call_batches ORDER BY last_revision DESC LIMIT 1 \
    ) b ON true) head";

#[derive(QueryableByName)]
struct HeadRow {
    #[diesel(sql_type = BigInt)]
    revision: Revision,
}

/// The newest revision in the log; 0 when there is none.
pub(crate) async fn head(session: &Session) -> QueryResult<Revision> {
    let head: HeadRow = session
        .row(sql_query(format!("SELECT revision FROM {HEAD}")))
        .await?;
    Ok(head.revision)
}

/// Whether the log still reaches back to a revision, and as far as it.
fn in_reach(revision: Revision, tail: &Tail) -> Result<(), LogError> {
    if revision < tail.oldest_revision {
        return Err(LogError::Compacted {
            oldest_revision: tail.oldest_revision,
        });
    }
    if revision > tail.head.revision {
        return Err(LogError::Ahead {
            head_revision: tail.head.revision,
        });
    }
    Ok(())
}

/// The entries that follow the position, if the first row is the position's own
/// and there is no gap.
fn follow(position: Position, rows: Vec<ChangeRow>) -> Option<Vec<LogEntry>> {
    let mut rows = rows.into_iter();
    if position.revision > 0 {
        let own = rows.next()?;
        (own.revision == position.revision && own.stamp == position.stamp).then_some(())?;
    }
    let mut next = position.revision;
    rows.map(|row| {
        next += 1;
        (row.revision == next).then(|| LogEntry {
            stamp: row.stamp,
            change: row.into_change(),
        })
    })
    .collect()
}

async fn page(
    session: &Session,
    position: Position,
    limit: i64,
    max_bytes: Option<i64>,
) -> QueryResult<Vec<ChangeRow>> {
    let after = position.revision;
    let mut last = after.saturating_add(limit);
    if let Some(max_bytes) = max_bytes {
        last = last_within(session, after, last, max_bytes).await?;
    }
    // Bounds on both sides, so that only the partitions in question are opened.
    let query = voice_call_changes::table
        .filter(voice_call_changes::revision.ge(after.max(1)))
        .filter(voice_call_changes::revision.le(last))
        .order(voice_call_changes::revision)
        .select(ChangeRow::as_select());
    session.rows(query).await
}

#[derive(QueryableByName)]
struct LastRow {
    #[diesel(sql_type = Nullable<BigInt>)]
    revision: Option<Revision>,
}

/// The entry, of those after one revision and up to another, with which they reach these bytes in
/// memory; the last, if they do not.
async fn last_within(
    session: &Session,
    after: Revision,
    last: Revision,
    max_bytes: i64,
) -> QueryResult<Revision> {
    // Texts that changed are counted twice, at most: an entry has the states before and after.
    let query = sql_query(
        "SELECT max(revision) AS revision FROM ( \
            SELECT revision, sum(size) OVER (ORDER BY revision) - size AS size_before FROM ( \
                SELECT revision, 1024 + coalesce(octet_length(old_values->>'call_summary'), 0) \
                    + 2 * (coalesce(octet_length(call_summary), 0) \
                        + coalesce(octet_length(recording_url), 0) \
                        + coalesce(octet_length(external_app_url), 0)) AS size \
                FROM voice_call_changes WHERE revision > $1 AND revision <= $2 \
            ) entries \
         ) sums WHERE size_before < $3",
    );
    let query = query
        .bind::<BigInt, _>(after)
        .bind::<BigInt, _>(last)
        .bind::<BigInt, _>(max_bytes);
    let row: LastRow = session.row(query).await?;
    Ok(row.revision.unwrap_or(after))
}

async fn stamp(session: &Session, revision: Revision) -> QueryResult<Option<i64>> {
    let query = voice_call_batches::table
        .filter(voice_call_batches::last_revision.ge(revision))
        .order(voice_call_batches::last_revision)
        .select(voice_call_batches::stamp)
        .limit(1);
    session.optional_row(query).await
}

#[derive(QueryableByName)]
struct TailRow {
    #[diesel(sql_type = SqlUuid)]
    feed_id: Uuid,
    #[diesel(sql_type = BigInt)]
    oldest_revision: Revision,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    log_time: Option<PgTimestamp>,
    #[diesel(sql_type = Timestamptz)]
    clock: PgTimestamp,
    #[diesel(sql_type = Nullable<BigInt>)]
    last_revision: Option<Revision>,
    #[diesel(sql_type = Nullable<BigInt>)]
    stamp: Option<i64>,
}

async fn tail(session: &Session) -> QueryResult<Tail> {
    let query = sql_query(
        "SELECT f.feed_id, f.oldest_revision, b.log_time, clock_timestamp() AS clock, \
            b.last_revision, b.stamp \
         FROM feed f LEFT JOIN LATERAL ( \
            SELECT last_revision, stamp, greatest(committed_at, confirmed_at) AS log_time \
            FROM voice_call_batches \
            ORDER BY last_revision DESC LIMIT 1 \
         ) b ON true",
    );
    let row: TailRow = session.row(query).await?;
    Ok(Tail {
        feed_id: row.feed_id,
        oldest_revision: row.oldest_revision,
        read_time: row.log_time.map_or(Timestamp::MIN, from_sql_time),
        clock: from_sql_time(row.clock),
        head: Position {
            revision: row.last_revision.unwrap_or(0),
            stamp: row.stamp.unwrap_or(0),
        },
    })
}
