//! The one statement that commits a batch: the call of the database function
//! `commit_batch`, prepared once on each connection.

use diesel::{
    data_types::PgTimestamp,
    pg::{Pg, sql_types::Timestamptz},
    prelude::*,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{Array, BigInt, Bool, Integer, Nullable, Text, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{
    batch::{Batch, Entry, Outcome},
    row::{from_sql_time, old_values, to_sql_time},
};
use crate::domain::{
    Change, PhoneNumber, Revision, Summary, Timestamp, Url, Uuid, text::Identifier,
};

/// What the database made of a batch. Only `Committed` has written anything.
#[derive(Debug)]
pub(super) enum Reply {
    /// Written: the changes follow `head_before`, at `committed_at`.
    Committed {
        head_before: Revision,
        committed_at: Timestamp,
    },
    /// Not written: the entries at these places were recorded before, or some of
    /// the calls have changed since they were read.
    Conflict { repeated: Vec<usize> },
    /// Not written: refused with this SQLSTATE.
    Refused(String),
}

/// Commits the batch under this stamp.
pub(super) async fn commit(
    connection: &mut AsyncPgConnection,
    stamp: i64,
    batch: &Batch,
) -> QueryResult<Reply> {
    let statement = CommitBatch::new(stamp, batch);
    let requests = statement.request_places.clone();
    let row: ReplyRow = statement.get_result(connection).await?;
    let (head_before, committed_at, repeated, stale, refusal) = row;
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
    match (head_before, committed_at) {
        (Some(head_before), Some(committed_at)) => Ok(Reply::Committed {
            head_before,
            committed_at: from_sql_time(committed_at),
        }),
        _ => Err(diesel::result::Error::NotFound),
    }
}

type ReplyRow = (
    Option<Revision>,
    Option<PgTimestamp>,
    Option<Vec<i32>>,
    Option<Vec<Uuid>>,
    Option<String>,
);

/// The statement: arrays, one element for each read, request and change. The
/// parameters of `commit_batch` explain them.
#[derive(Default)]
struct CommitBatch<'a> {
    stamp: i64,
    read_uids: Vec<Uuid>,
    read_revisions: Vec<i64>,
    /// The entries that the requests belong to; not sent.
    request_places: Vec<usize>,
    principals: Vec<&'a str>,
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
    durations: Vec<Option<i32>>,
    created_ats: Vec<PgTimestamp>,
    updated_ats: Vec<PgTimestamp>,
    statuses: Vec<&'a str>,
    directions: Vec<&'a str>,
    staff_uids: Vec<Option<&'a str>>,
    client_uids: Vec<Option<&'a str>>,
    from_numbers: Vec<Option<&'a str>>,
    to_numbers: Vec<Option<&'a str>>,
    recording_urls: Vec<Option<&'a str>>,
    call_summaries: Vec<Option<&'a str>>,
    external_app_urls: Vec<Option<&'a str>>,
    handled_by_staff_uids: Vec<Option<&'a str>>,
    handled_ats: Vec<Option<PgTimestamp>>,
    deleted_ats: Vec<Option<PgTimestamp>>,
}

impl<'a> CommitBatch<'a> {
    fn new(stamp: i64, batch: &'a Batch) -> Self {
        let mut this = Self {
            stamp,
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

    fn push_request(&mut self, place: usize, Entry { pending, outcome }: &'a Entry) {
        let Some(request) = pending.write.request else {
            return;
        };
        // Batches are far smaller than i32::MAX, so the fallback is never used.
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let (change, revision, changes) = match outcome {
            Outcome::Changes(range) => (count(range.start + 1), 0, count(range.len())),
            Outcome::Unchanged(call) => (0, call.revision, 0),
            Outcome::Absent | Outcome::Rejected(_) => (0, 0, 0),
        };
        self.request_places.push(place);
        self.principals.push(pending.write.principal_name());
        self.record_ids.push(request.id);
        self.fingerprints.push(request.fingerprint);
        self.record_uids.push(pending.write.first_uid());
        self.record_changes.push(change);
        self.record_revisions.push(revision);
        self.record_counts.push(changes);
        self.recorded.push(!matches!(outcome, Outcome::Rejected(_)));
    }

    fn push_change(&mut self, change: &'a Change) {
        let call = &*change.after;
        let a = &call.attributes;
        let name = |id: &'a Option<Identifier>| id.as_ref().map(Identifier::as_str);
        let number = |number: &'a Option<PhoneNumber>| number.as_ref().map(PhoneNumber::as_str);
        let url = |url: &'a Option<Url>| url.as_ref().map(Url::as_str);
        self.kinds.push(change.kind.word());
        self.actors.push(change.actor.as_deref());
        self.request_ids.push(change.request_id);
        self.transaction_ends.push(change.transaction_end);
        self.old_values.push(
            change
                .before
                .as_ref()
                .map(|before| old_values(before, call)),
        );
        self.uids.push(call.uid);
        self.durations
            .push(a.duration.map(|duration| duration.get()));
        self.created_ats.push(to_sql_time(call.created_at));
        self.updated_ats.push(to_sql_time(call.updated_at));
        self.statuses.push(a.status.word());
        self.directions.push(a.direction.word());
        self.staff_uids.push(name(&a.staff_uid));
        self.client_uids.push(name(&a.client_uid));
        self.from_numbers.push(number(&a.from_number));
        self.to_numbers.push(number(&a.to_number));
        self.recording_urls.push(url(&a.recording_url));
        self.call_summaries
            .push(a.call_summary.as_ref().map(Summary::as_str));
        self.external_app_urls.push(url(&a.external_app_url));
        self.handled_by_staff_uids
            .push(name(&a.handled_by_staff_uid));
        self.handled_ats.push(a.handled_at.map(to_sql_time));
        self.deleted_ats.push(call.deleted_at.map(to_sql_time));
    }
}

impl Query for CommitBatch<'_> {
    type SqlType = (
        Nullable<BigInt>,
        Nullable<Timestamptz>,
        Nullable<Array<Integer>>,
        Nullable<Array<SqlUuid>>,
        Nullable<Text>,
    );
}

impl QueryId for CommitBatch<'_> {
    type QueryId = CommitBatch<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl QueryFragment<Pg> for CommitBatch<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        /// Binds one parameter after another, with commas between them.
        macro_rules! bind {
            ($($sql_type:ty => $field:ident),* $(,)?) => {
                $(out.push_sql(", "); out.push_bind_param::<$sql_type, _>(&self.$field)?;)*
            };
        }
        out.push_sql(
            "SELECT head_revision, committed_at, repeated, stale, refusal FROM commit_batch(",
        );
        out.push_bind_param::<BigInt, _>(&self.stamp)?;
        bind! {
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
            Array<Nullable<Integer>> => durations,
            Array<Timestamptz> => created_ats,
            Array<Timestamptz> => updated_ats,
            Array<Text> => statuses,
            Array<Text> => directions,
            Array<Nullable<Text>> => staff_uids,
            Array<Nullable<Text>> => client_uids,
            Array<Nullable<Text>> => from_numbers,
            Array<Nullable<Text>> => to_numbers,
            Array<Nullable<Text>> => recording_urls,
            Array<Nullable<Text>> => call_summaries,
            Array<Nullable<Text>> => external_app_urls,
            Array<Nullable<Text>> => handled_by_staff_uids,
            Array<Nullable<Timestamptz>> => handled_ats,
            Array<Nullable<Timestamptz>> => deleted_ats,
        }
        out.push_sql(")");
        Ok(())
    }
}
