//! The one statement that commits a batch: the call of the database function `commit_batch_v1`,
//! prepared once on each connection. Its reply says that the batch is committed, that requests
//! are repeated or reads are stale, that a partition is missing, or why the database refused it.

use std::borrow::Cow;

use diesel::{
    data_types::PgTimestamp,
    pg::{Pg, sql_types::Timestamptz},
    prelude::*,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{Array, BigInt, Bool, Integer, Nullable, Text, Uuid as SqlUuid},
};

use super::planner::{Batch, PlannedOutcome, PlannedWrite};
use crate::{
    domain::{
        Direction, Identifier, PendingCall, PendingChange, PendingTime, PhoneNumber, Revision,
        Seconds, Status, Summary, Timestamp, Url, Uuid,
    },
    store::{
        change_log::log::Position,
        columns::{ColumnField, Parts, call_columns},
        database::{Clock, Session},
        row::old_values,
        values::{from_sql_time, to_sql_time},
    },
};

/// What the database made of a batch. Only `Committed` has written anything.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Written: the changes follow `head_before`, at `committed_at`.
    Committed {
        head_before: Position,
        committed_at: Timestamp,
        /// What the database's clock says.
        clock: Timestamp,
    },
    /// Not written: the entries at these places were recorded before, or some of
    /// the calls have changed since they were read.
    Conflict { repeated: Vec<usize> },
    /// Not written: there is no partition for it.
    LacksPartition,
    /// Not written: refused with this SQLSTATE.
    Refused(String),
}

/// Commits the batch under this stamp: it is committed when the statement has been read to
/// its end, and not with the row that it returns.
pub(crate) async fn commit(
    session: &Session,
    stamp: i64,
    clock: &Clock,
    batch: &Batch,
) -> QueryResult<Reply> {
    let statement = CommitBatch::new(stamp, clock, batch);
    let requests = statement.request_places.clone();
    let row: ReplyRow = session.row(statement).await?;
    let (head_revision, head_stamp, times, repeated, stale, refusal, lacks_partition) = row;
    if lacks_partition == Some(true) {
        return Ok(Reply::LacksPartition);
    }
    if let Some(sqlstate) = refusal {
        return Ok(Reply::Refused(sqlstate));
    }
    if repeated.is_some() || stale.is_some() {
        let places = repeated.unwrap_or_default();
        let place_of = |place: i32| {
            let index = usize::try_from(place).ok()?.checked_sub(1)?;
            requests.get(index).copied()
        };
        return Ok(Reply::Conflict {
            repeated: places.into_iter().filter_map(place_of).collect(),
        });
    }
    match (head_revision, head_stamp, times) {
        (Some(revision), Some(stamp), (Some(committed_at), Some(clock))) => Ok(Reply::Committed {
            head_before: Position { revision, stamp },
            committed_at: from_sql_time(committed_at),
            clock: from_sql_time(clock),
        }),
        _ => Err(diesel::result::Error::NotFound),
    }
}

type ReplyRow = (
    Option<Revision>,
    Option<i64>,
    (Option<PgTimestamp>, Option<PgTimestamp>),
    Option<Vec<i32>>,
    Option<Vec<Uuid>>,
    Option<String>,
    Option<bool>,
);

/// The statement: arrays, one element for each read, request and change. The
/// parameters of `commit_batch_v1` explain them.
#[derive(Default)]
struct CommitBatch<'a> {
    stamp: i64,
    now: Option<PgTimestamp>,
    expiry: Option<PgTimestamp>,
    read_uids: Vec<Uuid>,
    read_revisions: Vec<i64>,
    /// The entries that the requests belong to; not sent.
    request_places: Vec<usize>,
    principals: Vec<Cow<'a, str>>,
    record_ids: Vec<Uuid>,
    fingerprints: Vec<Uuid>,
    record_uids: Vec<Uuid>,
    record_changes: Vec<i32>,
    record_revisions: Vec<i64>,
    record_counts: Vec<i32>,
    recorded: Vec<bool>,
    kinds: Vec<&'static str>,
    actors: Vec<Option<&'a str>>,
    request_ids: Vec<Option<Uuid>>,
    transaction_ends: Vec<bool>,
    old_values: Vec<Option<String>>,
    uids: Vec<Uuid>,
    calls: CallArrays<'a>,
}

/// What is written of the calls as the changes leave them: an array for each column.
macro_rules! call_arrays {
    ($($part:ident.$column:ident: $type:ty => $parameter:literal $sql_type:ty,)*) => {
        /// One element for each change: null where there is no value, or no call.
        #[derive(Default)]
        struct CallArrays<'a> {
            $($column: Vec<Option<&'a <$type as ColumnField>::Value>>,)*
        }

        impl<'a> CallArrays<'a> {
            fn push(&mut self, call: Option<&'a PendingCall>) {
                let parts = call.map(Parts::from);
                $(
                    let value = parts.as_ref().and_then(|parts| parts.$part.$column.value());
                    self.$column.push(value);
                )*
            }

            fn bind<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
                $(
                    out.push_sql(concat!(", ", $parameter, " => "));
                    out.push_bind_param::<Array<Nullable<$sql_type>>, _>(&self.$column)?;
                )*
                Ok(())
            }
        }
    };
}

call_columns!(call_arrays, PendingTime);

impl<'a> CommitBatch<'a> {
    fn new(stamp: i64, clock: &Clock, batch: &'a Batch) -> Self {
        let mut this = Self {
            stamp,
            now: Some(to_sql_time(clock.log_now())),
            expiry: Some(to_sql_time(clock.expiry_now())),
            ..Self::default()
        };
        (this.read_uids, this.read_revisions) = batch.reads.iter().copied().unzip();
        for (place, entry) in batch.entries.iter().enumerate() {
            this.push_request(place, entry);
        }
        for change in &batch.changes {
            this.push_change(change);
        }
        this
    }

    fn push_request(&mut self, place: usize, PlannedWrite { pending, outcome }: &'a PlannedWrite) {
        let Some(request) = pending.write.request else {
            return;
        };
        // Batches are far smaller than i32::MAX, so the fallback is never used.
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let (change, revision, changes) = match outcome {
            PlannedOutcome::Changes(range) => (count(range.start + 1), 0, count(range.len())),
            PlannedOutcome::Unchanged(call) => (0, call.revision, 0),
            // Imports carry no request ids.
            PlannedOutcome::Imported(..)
            | PlannedOutcome::Absent
            | PlannedOutcome::Confirmed
            | PlannedOutcome::Rejected(_) => (0, 0, 0),
        };
        self.request_places.push(place);
        self.principals.push(pending.write.principal_name());
        self.record_ids.push(request.id);
        self.fingerprints.push(request.fingerprint);
        self.record_uids.push(pending.write.first_uid());
        self.record_changes.push(change);
        self.record_revisions.push(revision);
        self.record_counts.push(changes);
        self.recorded
            .push(!matches!(outcome, PlannedOutcome::Rejected(_)));
    }

    fn push_change(&mut self, change: &'a PendingChange) {
        let call = change.after.as_ref();
        self.kinds.push(change.kind.word());
        self.actors.push(change.actor.as_deref());
        self.request_ids.push(change.request_id);
        self.transaction_ends.push(change.transaction_end);
        self.old_values.push(match (&change.before, call) {
            (Some(before), Some(after)) => Some(old_values(before, after)),
            _ => None,
        });
        self.uids.push(change.uid);
        self.calls.push(call);
    }
}

impl Query for CommitBatch<'_> {
    type SqlType = (
        Nullable<BigInt>,
        Nullable<BigInt>,
        (Nullable<Timestamptz>, Nullable<Timestamptz>),
        Nullable<Array<Integer>>,
        Nullable<Array<SqlUuid>>,
        Nullable<Text>,
        Nullable<Bool>,
    );
}

impl QueryId for CommitBatch<'_> {
    type QueryId = CommitBatch<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl QueryFragment<Pg> for CommitBatch<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        /// Binds fields to the parameters of their names, which begin with `p_`.
        macro_rules! bind {
            ($($sql_type:ty => $field:ident),* $(,)?) => {$(
                out.push_sql(concat!(", p_", stringify!($field), " => "));
                out.push_bind_param::<$sql_type, _>(&self.$field)?;
            )*};
        }
        out.push_sql(
            "SELECT head_revision, head_stamp, committed_at, clock, repeated, stale, refusal, \
             lacks_partition FROM commit_batch_v1(p_stamp => ",
        );
        out.push_bind_param::<BigInt, _>(&self.stamp)?;
        bind! {
            Nullable<Timestamptz> => now,
            Nullable<Timestamptz> => expiry,
            Array<SqlUuid> => read_uids,
            Array<BigInt> => read_revisions,
            Array<Text> => principals,
            Array<SqlUuid> => record_ids,
            Array<SqlUuid> => fingerprints,
            Array<SqlUuid> => record_uids,
            Array<Integer> => record_changes,
            Array<BigInt> => record_revisions,
            Array<Integer> => record_counts,
            Array<Bool> => recorded,
            Array<Text> => kinds,
            Array<Nullable<Text>> => actors,
            Array<Nullable<SqlUuid>> => request_ids,
            Array<Bool> => transaction_ends,
            Array<Nullable<Text>> => old_values,
            Array<SqlUuid> => uids,
        }
        self.calls.bind(out.reborrow())?;
        out.push_sql(")");
        Ok(())
    }
}
