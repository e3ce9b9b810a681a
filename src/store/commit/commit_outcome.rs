//! The outcome of a commit whose connection broke: found out, never guessed.
//!
//! Every batch has a random stamp in the log of batches. Once the backend that had the batch is
//! gone, the log says whether it was committed, provided that it is the same log. That it is the
//! same is seen by the position that the session had known before: it must still be there. A batch
//! that is not found was not committed only if the server's timeline is the same, too: after a
//! failover the outcome is then unknown.

use std::time::Duration;

use diesel::{
    QueryResult, QueryableByName, data_types::PgTimestamp, pg::sql_types::Timestamptz, sql_query,
    sql_types::BigInt,
};
use tokio::time::{Instant, sleep, timeout_at};

use super::session::{Backend, WriterSession, WriterSessions, lives};
use crate::{
    domain::{Revision, Timestamp},
    store::{change_log::log::Position, database::Session, values::from_sql_time},
};

/// How long callers wait for the outcome.
const PATIENCE: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A commit whose session was lost.
#[derive(Debug)]
pub(crate) struct LostCommit {
    pub(crate) backend: Backend,
    /// Where the log ended at some time before.
    pub(crate) known: Position,
    pub(crate) stamp: i64,
    /// How many changes the batch has.
    pub(crate) changes: usize,
}

/// The outcome of a commit.
#[derive(Debug)]
pub(crate) enum CommitOutcome {
    /// It was committed: its changes follow `head_before`.
    Committed {
        head_before: Revision,
        committed_at: Timestamp,
    },
    /// It was not, and will not be.
    NotCommitted,
    /// It cannot be found out.
    Unknown,
}

/// Finds out the outcome of the commit; returns it with the session that found it, if any.
///
/// That session has reached the synchronous standby since it was opened, so what it finds is as
/// durable as its own commits.
pub(crate) async fn find(
    sessions: &mut WriterSessions,
    lost: &LostCommit,
) -> (CommitOutcome, Option<WriterSession>) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Ok(Ok(session)) = timeout_at(deadline, sessions.open(true)).await {
            match timeout_at(deadline, look(&session, lost)).await {
                Ok(Ok(Some(outcome))) => return (outcome, Some(session)),
                // The lost backend still lives: this is another server than the one where it
                // was ended.
                Ok(Ok(None)) => {}
                Ok(Err(_)) | Err(_) => sessions.give_up(session.backend),
            }
        }
        sleep(LOOK_EVERY).await;
    }
    (CommitOutcome::Unknown, None)
}

/// One look; `None` while the lost backend still lives.
async fn look(
    WriterSession {
        session, backend, ..
    }: &WriterSession,
    lost: &LostCommit,
) -> QueryResult<Option<CommitOutcome>> {
    if lives(session, &lost.backend).await? {
        return Ok(None);
    }
    let is_same_log = holds(session, lost.known).await?;
    if is_same_log && let Some(found) = batch_with(session, lost.stamp, lost.known).await? {
        let changes = Revision::try_from(lost.changes).unwrap_or(Revision::MAX);
        return Ok(Some(CommitOutcome::Committed {
            head_before: found.last_revision - changes,
            committed_at: from_sql_time(found.committed_at),
        }));
    }
    Ok(Some(
        if is_same_log && backend.timeline == lost.backend.timeline {
            CommitOutcome::NotCommitted
        } else {
            CommitOutcome::Unknown
        },
    ))
}

#[derive(QueryableByName)]
struct Stamp {
    #[diesel(sql_type = BigInt)]
    stamp: i64,
}

/// Whether the log has this position, the end of a batch.
async fn holds(session: &Session, position: Position) -> QueryResult<bool> {
    if position == Position::default() {
        return Ok(true);
    }
    let stamp: Option<Stamp> = session
        .optional_row(
            sql_query("SELECT stamp FROM voice_call_batches WHERE last_revision = $1")
                .bind::<BigInt, _>(position.revision),
        )
        .await?;
    Ok(stamp.is_some_and(|Stamp { stamp }| stamp == position.stamp))
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = BigInt)]
    last_revision: i64,
    #[diesel(sql_type = Timestamptz)]
    committed_at: PgTimestamp,
}

/// The batch with this stamp, after this position.
async fn batch_with(session: &Session, stamp: i64, after: Position) -> QueryResult<Option<Found>> {
    session
        .optional_row(
            sql_query(
                "SELECT last_revision, committed_at FROM voice_call_batches \
                 WHERE last_revision > $1 AND stamp = $2 ORDER BY last_revision LIMIT 1",
            )
            .bind::<BigInt, _>(after.revision)
            .bind::<BigInt, _>(stamp),
        )
        .await
}

/// Whether the batch that this session has just committed is in the log. The COMMIT of a
/// transaction that has failed is a rollback, and no error.
pub(crate) async fn is_committed(session: &WriterSession, stamp: i64) -> QueryResult<bool> {
    let found = batch_with(&session.session, stamp, session.known).await?;
    Ok(found.is_some())
}
