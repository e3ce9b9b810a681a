//! The statements of look-ups: calls by uid, for callers who see all of them and for those who are
//! narrowed, and which uids are those of purged calls.

use diesel::{
    pg::Pg,
    prelude::*,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{Array, BigInt, Bool, Nullable, Text, Uuid as SqlUuid},
};

use super::narrowing_sql::UNASSIGNED;
use crate::{
    domain::{Call, Identifier, Narrowing, Revision, Uuid},
    store::{
        change_log::log::HEAD,
        database::Session,
        row::CallRow,
        schema::{purged_calls, voice_calls},
    },
};

/// The calls with these uids, in no order, by a statement that is prepared once
/// on each connection.
pub(crate) async fn load(session: &Session, uids: &[Uuid]) -> QueryResult<Vec<Call>> {
    let rows: Vec<CallRow> = session.rows(ByUid { uids }).await?;
    Ok(rows.into_iter().map(Call::from).collect())
}

/// The same for callers who are narrowed. A call that they may not see takes as long as one that
/// is not there: it is not read.
pub(crate) async fn load_narrowed(
    session: &Session,
    uids: &NarrowedUids<'_>,
) -> QueryResult<Vec<Call>> {
    let rows: Vec<CallRow> = session.rows(uids).await?;
    Ok(rows.into_iter().map(Call::from).collect())
}

/// Calls, and the newest revision in the snapshot that they were read in.
pub(super) type CallsWithHead = (Vec<Call>, Revision);

pub(super) async fn load_with_head(session: &Session, uids: &[Uuid]) -> QueryResult<CallsWithHead> {
    let found = ByUid { uids };
    Ok(with_head(session.rows(WithHead { found }).await?))
}

pub(super) async fn load_narrowed_with_head(
    session: &Session,
    found: &NarrowedUids<'_>,
) -> QueryResult<CallsWithHead> {
    Ok(with_head(session.rows(WithHead { found }).await?))
}

fn with_head(rows: Vec<(Revision, Option<CallRow>)>) -> CallsWithHead {
    let head = rows.as_slice().first().map_or(0, |(head, _)| *head);
    let calls = rows.into_iter().filter_map(|(_, row)| row.map(Call::from));
    (calls.collect(), head)
}

/// Those of these uids whose calls were purged.
pub(crate) async fn purged(session: &Session, uids: &[Uuid]) -> QueryResult<Vec<Uuid>> {
    let query = purged_calls::table
        .filter(purged_calls::uid.eq_any(uids))
        .select(purged_calls::uid);
    session.rows(query).await
}

struct ByUid<'a> {
    uids: &'a [Uuid],
}

impl Query for ByUid<'_> {
    type SqlType = voice_calls::SqlType;
}

impl QueryId for ByUid<'_> {
    type QueryId = ByUid<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl QueryFragment<Pg> for ByUid<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("SELECT ");
        voice_calls::all_columns.walk_ast(out.reborrow())?;
        out.push_sql(" FROM voice_calls WHERE uid = ANY(");
        out.push_bind_param::<Array<SqlUuid>, _>(&self.uids)?;
        out.push_sql(")");
        Ok(())
    }
}

/// Uids, and what the caller who asks for each may see.
#[derive(Debug, Default)]
pub(crate) struct NarrowedUids<'a> {
    uids: Vec<Uuid>,
    staff_uids: Vec<Option<&'a str>>,
    unassigned: Vec<bool>,
    client_uids: Vec<Option<&'a str>>,
}

impl<'a> NarrowedUids<'a> {
    /// Adds uids that a caller with this narrowing asks for.
    pub(crate) fn extend(
        &mut self,
        uids: impl IntoIterator<Item = Uuid>,
        narrowing: &'a Narrowing,
    ) {
        let staff = narrowing.staff();
        for uid in uids {
            self.uids.push(uid);
            self.staff_uids
                .push(staff.map(|staff| staff.staff_uid.as_str()));
            self.unassigned
                .push(staff.is_some_and(|staff| staff.unassigned));
            self.client_uids
                .push(narrowing.client_uid().map(Identifier::as_str));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }
}

impl Query for NarrowedUids<'_> {
    type SqlType = voice_calls::SqlType;
}

impl QueryId for NarrowedUids<'_> {
    type QueryId = NarrowedUids<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl QueryFragment<Pg> for NarrowedUids<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("SELECT voice_calls.* FROM unnest(");
        out.push_bind_param::<Array<SqlUuid>, _>(&self.uids)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<Text>>, _>(&self.staff_uids)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Bool>, _>(&self.unassigned)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<Text>>, _>(&self.client_uids)?;
        // One look into the index for each, whatever the table was when this was planned.
        out.push_sql(") AS asked (uid, staff, unassigned, client) CROSS JOIN LATERAL (SELECT ");
        voice_calls::all_columns.walk_ast(out.reborrow())?;
        out.push_sql(
            " FROM voice_calls WHERE uid = asked.uid \
             AND (asked.client IS NULL OR client_uid = asked.client) \
             AND (asked.staff IS NULL OR staff_uid = asked.staff \
                OR handled_by_staff_uid = asked.staff OR asked.unassigned AND ",
        );
        out.push_sql(UNASSIGNED);
        out.push_sql(") LIMIT 1) voice_calls");
        Ok(())
    }
}

/// What is found beside the newest revision: one row with that alone when there is nothing.
struct WithHead<F> {
    found: F,
}

impl<F: Query<SqlType = voice_calls::SqlType>> Query for WithHead<F> {
    type SqlType = (BigInt, Nullable<voice_calls::SqlType>);
}

impl<F: QueryId> QueryId for WithHead<F> {
    type QueryId = WithHead<F::QueryId>;
    const HAS_STATIC_QUERY_ID: bool = F::HAS_STATIC_QUERY_ID;
}

impl<F: QueryFragment<Pg>> QueryFragment<Pg> for WithHead<F> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("SELECT head.revision, found.* FROM ");
        out.push_sql(HEAD);
        out.push_sql(" LEFT JOIN (");
        self.found.walk_ast(out.reborrow())?;
        out.push_sql(") found ON true");
        Ok(())
    }
}
