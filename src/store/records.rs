//! Request records: what was answered to a request id, rebuilt from the change
//! log; and the partitions that the records live and go in.

use std::sync::Arc;

use diesel::{dsl::sql, prelude::*, sql_types::Bool};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;

use super::{
    error::WriteError,
    row::{CallRow, STATE_AFTER, with_old_values},
    schema::{request_records, voice_call_changes, voice_calls},
    write::{RequestKey, Written},
};
use crate::domain::{Call, Revision, Uuid};

/// What was answered to this request of this principal; `None` when there is no
/// record of it (any more).
pub(super) async fn recorded_answer(
    connection: &mut AsyncPgConnection,
    principal: &str,
    request: RequestKey,
) -> QueryResult<Option<Result<Written, WriteError>>> {
    let record: Option<(Uuid, Uuid, Revision, i32)> = request_records::table
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
        .first(connection)
        .await
        .optional()?;
    let Some((fingerprint, uid, revision, change_count)) = record else {
        return Ok(None);
    };
    if fingerprint != request.fingerprint {
        return Ok(Some(Err(WriteError::RequestIdReused)));
    }
    let calls = if change_count > 0 {
        states_after(connection, revision, i64::from(change_count)).await?
    } else if revision > 0 {
        state_at(connection, uid, revision)
            .await?
            .into_iter()
            .collect()
    } else {
        Vec::new()
    };
    Ok(Some(Ok(calls.into_iter().map(Arc::new).collect())))
}

/// The states after `count` changes from `first` on.
async fn states_after(
    connection: &mut AsyncPgConnection,
    first: Revision,
    count: i64,
) -> QueryResult<Vec<Call>> {
    let rows: Vec<CallRow> = voice_call_changes::table
        .filter(voice_call_changes::revision.between(first, first + count - 1))
        .order(voice_call_changes::revision)
        .select(STATE_AFTER)
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(Call::from).collect())
}

/// The call's state at `revision`, which may be older than the log: then it is
/// the state before the next change of the call, or the present one.
async fn state_at(
    connection: &mut AsyncPgConnection,
    uid: Uuid,
    revision: Revision,
) -> QueryResult<Option<Call>> {
    let next: Option<(CallRow, Option<Value>)> = voice_call_changes::table
        .filter(voice_call_changes::uid.eq(uid))
        .filter(voice_call_changes::revision.ge(revision))
        .order(voice_call_changes::revision)
        .select((STATE_AFTER, voice_call_changes::old_values.nullable()))
        .first(connection)
        .await
        .optional()?;
    if let Some((row, old_values)) = next {
        let after = Call::from(row);
        return Ok(Some(if after.revision == revision {
            after
        } else {
            with_old_values(after, &old_values.unwrap_or_default())
        }));
    }
    let row: Option<CallRow> = voice_calls::table
        .find(uid)
        .select(CallRow::as_select())
        .first(connection)
        .await
        .optional()?;
    Ok(row.map(Call::from))
}
