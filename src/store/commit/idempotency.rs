//! Idempotency records: the response to a request that was applied before, rebuilt from the
//! change log. That a request is a repeat is recognised by the database function
//! `commit_batch_v1` (in `migrations/`), in the commit itself. The planner only keeps two requests
//! with one ID out of the same batch.

use std::sync::Arc;

use diesel::{
    data_types::PgTimestamp,
    pg::{Pg, sql_types::Timestamptz},
    prelude::*,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{BigInt, Integer, Text, Uuid as SqlUuid},
};

use super::write::{RequestKey, Written};
use crate::{
    domain::{Call, ChangeKind, Revision, Timestamp, Uuid, machine::Rejection},
    store::{
        database::Session,
        error::WriteError,
        row::{CallRow, ChangeRow},
        schema::{feed, purged_calls, voice_call_changes, voice_calls},
        values::to_sql_time,
    },
};

/// Request IDs are kept for a day.
const KEPT_MICROS: i64 = 24 * 3600 * 1_000_000;

/// The revision and the number of changes in the record of a request whose response had no
/// call: a delete of a call that may be missing.
const NO_CALL: (Revision, i32) = (0, 0);

/// The response to this request of this principal; `None` if there is no record of it, or not any
/// more.
pub(crate) async fn recorded_answer(
    session: &Session,
    principal: &str,
    request: RequestKey,
    expiry: Timestamp,
) -> QueryResult<Option<Result<Written, WriteError>>> {
    let forgotten = Timestamp::clamped(expiry.micros().saturating_sub(KEPT_MICROS));
    let query = LastRecord {
        principal,
        request_id: request.id,
        recorded_after: to_sql_time(forgotten),
    };
    let record: Option<(Uuid, Uuid, Revision, i32)> = session.optional_row(query).await?;
    let Some((fingerprint, uid, revision, change_count)) = record else {
        return Ok(None);
    };
    // A purge leaves a nil fingerprint, which any request fits.
    let fits = fingerprint.is_nil() || fingerprint == request.fingerprint;
    if fits && (revision, change_count) == NO_CALL {
        return Ok(Some(Ok(Written::default())));
    }
    let purge = purge_of(session, uid).await?;
    let is_the_purge = change_count == 1 && purge == Some(revision);
    // No response tells anything of a purged call, not even whether a guess of it is right.
    if purge.is_some() && !is_the_purge {
        return Ok(Some(Err(purged(uid))));
    }
    if !fits {
        return Ok(Some(Err(WriteError::RequestIdReused)));
    }
    if is_the_purge {
        // It is known for longer than the log reaches back.
        return Ok(Some(Ok(Written {
            revision,
            ..Written::default()
        })));
    }
    if change_count > 0 {
        let last = revision + i64::from(change_count) - 1;
        return Ok(Some(changes_answer(session, uid, revision, last).await?));
    }
    Ok(Some(state_at(session, uid, revision).await?))
}

/// The last record of a request, by a statement that is prepared once on each connection.
struct LastRecord<'a> {
    principal: &'a str,
    request_id: Uuid,
    recorded_after: PgTimestamp,
}

impl Query for LastRecord<'_> {
    type SqlType = (SqlUuid, SqlUuid, BigInt, Integer);
}

impl QueryId for LastRecord<'_> {
    type QueryId = LastRecord<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl QueryFragment<Pg> for LastRecord<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "SELECT fingerprint, uid, revision, change_count FROM idempotency_records \
             WHERE request_id = ",
        );
        out.push_bind_param::<SqlUuid, _>(&self.request_id)?;
        out.push_sql(" AND principal = ");
        out.push_bind_param::<Text, _>(self.principal)?;
        out.push_sql(" AND recorded_at > ");
        out.push_bind_param::<Timestamptz, _>(&self.recorded_after)?;
        out.push_sql(" ORDER BY recorded_at DESC LIMIT 1");
        Ok(())
    }
}

/// The revision at which the call was purged.
async fn purge_of(session: &Session, uid: Uuid) -> QueryResult<Option<Revision>> {
    let query = purged_calls::table.find(uid).select(purged_calls::revision);
    session.optional_row(query).await
}

/// The response to the request that made the changes from `first` to `last`, the first of them to
/// the call `uid`.
async fn changes_answer(
    session: &Session,
    uid: Uuid,
    first: Revision,
    last: Revision,
) -> QueryResult<Result<Written, WriteError>> {
    let query = voice_call_changes::table
        .filter(voice_call_changes::revision.between(first, last))
        .order(voice_call_changes::revision)
        .select(ChangeRow::as_select());
    let rows: Vec<ChangeRow> = session.rows(query).await?;
    // Some may have left the log.
    let is_whole = Revision::try_from(rows.len()).is_ok_and(|len| len == last - first + 1);
    if !is_whole && first == last {
        return state_at(session, uid, first).await;
    }
    if !is_whole {
        return Ok(Err(compacted(session).await?));
    }
    let mut written = Written {
        calls: Vec::with_capacity(rows.len()),
        revision: last,
        ..Written::default()
    };
    for change in rows.into_iter().map(ChangeRow::into_change) {
        match change.after {
            Some(call) => written.calls.push(call),
            // The response to a purge has no call.
            None if change.kind == Some(ChangeKind::Purged) => {}
            None => return Ok(Err(purged(change.uid))),
        }
    }
    Ok(Ok(written))
}

/// The call as it was at `revision`. The log may not reach back so far: then it is the state
/// before the next change of the call, or the present one, if that is of this revision.
async fn state_at(
    session: &Session,
    uid: Uuid,
    revision: Revision,
) -> QueryResult<Result<Written, WriteError>> {
    let query = voice_call_changes::table
        .filter(voice_call_changes::uid.eq(uid))
        .filter(voice_call_changes::revision.ge(revision))
        .order(voice_call_changes::revision)
        .select(ChangeRow::as_select())
        .limit(1);
    let next: Option<ChangeRow> = session.optional_row(query).await?;
    if let Some(change) = next.map(ChangeRow::into_change) {
        let state = if change.revision == revision {
            change.after
        } else {
            change.before
        };
        return match state {
            None => Ok(Err(purged(uid))),
            Some(call) if call.revision == revision => Ok(Ok(Written::calls(vec![call]))),
            Some(_) => Ok(Err(compacted(session).await?)),
        };
    }
    let query = voice_calls::table.find(uid).select(CallRow::as_select());
    let row: Option<CallRow> = session.optional_row(query).await?;
    match row.map(Call::from) {
        None => Ok(Err(purged(uid))),
        Some(call) if call.revision == revision => Ok(Ok(Written::calls(vec![Arc::new(call)]))),
        Some(_) => Ok(Err(compacted(session).await?)),
    }
}

/// The request was applied before, and its response has left the log.
async fn compacted(session: &Session) -> QueryResult<WriteError> {
    let query = feed::table.select(feed::oldest_revision);
    let oldest_revision = session.row(query).await?;
    Ok(WriteError::AnswerCompacted { oldest_revision })
}

fn purged(uid: Uuid) -> WriteError {
    WriteError::Rejected {
        place: 0,
        rejection: Rejection::Purged { uid },
    }
}
