//! Request records: what was answered to a request id, rebuilt from the change
//! log.

use std::sync::Arc;

use diesel::{dsl::sql, prelude::*, sql_types::Bool};

use super::{
    database::Session,
    error::WriteError,
    row::{CallRow, ChangeRow},
    schema::{request_records, voice_call_changes, voice_calls},
    write::{RequestKey, Written},
};
use crate::domain::{Call, ChangeKind, Revision, Uuid, machine::Rejection};

/// What was answered to this request of this principal; `None` when there is no
/// record of it (any more).
pub(super) async fn recorded_answer(
    session: &Session,
    principal: &str,
    request: RequestKey,
) -> QueryResult<Option<Result<Written, WriteError>>> {
    let query = request_records::table
        .filter(request_records::request_id.eq(request.id))
        .filter(request_records::principal.eq(principal))
        .filter(sql::<Bool>("recorded_at > now() - interval '24 hours'"))
        .order(request_records::recorded_at.desc())
        .select((
            request_records::fingerprint,
            request_records::uid,
            request_records::revision,
            request_records::change_count,
        ))
        .limit(1);
    let record: Option<(Uuid, Uuid, Revision, i32)> = session.optional_row(query).await?;
    let Some((fingerprint, uid, revision, change_count)) = record else {
        return Ok(None);
    };
    // A purge leaves a nil fingerprint, which any request fits.
    if !fingerprint.is_nil() && fingerprint != request.fingerprint {
        return Ok(Some(Err(WriteError::RequestIdReused)));
    }
    if change_count > 0 {
        let last = revision + i64::from(change_count) - 1;
        return Ok(Some(changes_answer(session, revision, last).await?));
    }
    Ok(Some(match revision {
        0 => Ok(Written::default()),
        _ => state_at(session, uid, revision).await?,
    }))
}

/// What the request was answered that made the changes from `first` to `last`.
async fn changes_answer(
    session: &Session,
    first: Revision,
    last: Revision,
) -> QueryResult<Result<Written, WriteError>> {
    let query = voice_call_changes::table
        .filter(voice_call_changes::revision.between(first, last))
        .order(voice_call_changes::revision)
        .select(ChangeRow::as_select());
    let rows: Vec<ChangeRow> = session.rows(query).await?;
    let mut written = Written {
        calls: Vec::with_capacity(rows.len()),
        revision: last,
        ..Written::default()
    };
    for change in rows.into_iter().map(ChangeRow::into_change) {
        match change.after {
            Some(call) => written.calls.push(call),
            // Its own answer had no call.
            None if change.kind == Some(ChangeKind::Purged) => {}
            None => return Ok(Err(purged(change.uid))),
        }
    }
    Ok(Ok(written))
}

/// What a request was answered that found the call at `revision` and changed
/// nothing. The log may not reach back so far: then it is the state before the
/// next change of the call, or the present one.
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
        return Ok(state.map_or_else(|| Err(purged(uid)), |call| Ok(Written::calls(vec![call]))));
    }
    let query = voice_calls::table.find(uid).select(CallRow::as_select());
    let row: Option<CallRow> = session.optional_row(query).await?;
    Ok(row.map_or_else(
        || Err(purged(uid)),
        |row| Ok(Written::calls(vec![Arc::new(Call::from(row))])),
    ))
}

fn purged(uid: Uuid) -> WriteError {
    WriteError::Rejected {
        place: 0,
        rejection: Rejection::Purged { uid },
    }
}
