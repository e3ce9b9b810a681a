//! Pages of calls: keyset pagination, each page and the revision it is true at
//! in one statement, hence one snapshot.

use diesel::{
    pg::Pg,
    prelude::*,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{BigInt, Nullable},
};
use tokio::time::Instant;

use super::{
    filter_sql::{CallQuery, in_view_in_parts, is_common, is_plain},
    predicate::Predicate,
};
use crate::{
    domain::{
        Call, Revision, View,
        list::{Order, OrderField, PageKey},
    },
    store::{
        change_log::log::{HEAD, Position},
        database::{Pool, Session},
        error::ReadError,
        row::CallRow,
        schema::voice_calls as t,
        values::to_sql_time,
    },
};

/// A request for a page.
#[derive(Debug)]
pub struct PageQuery {
    /// Which calls.
    pub view: View,
    /// In which order.
    pub order: Order,
    /// After which call; `None`: the first page.
    pub after: Option<PageKey>,
    /// How many calls at most.
    pub limit: usize,
}

/// Calls, and where the log ended in the snapshot they were read in.
#[derive(Debug)]
pub struct CallPage {
    /// The calls, in order.
    pub calls: Vec<Call>,
    /// Whether there are calls after these.
    pub has_more: bool,
    /// The end of the log.
    pub position: Position,
}

/// Reads pages.
#[derive(Clone)]
pub(crate) struct Lists {
    pool: Pool,
    /// For pages whose plan does not depend on the values.
    plain: Pool,
    planned_once_from: Revision,
}

impl Lists {
    pub(crate) fn new(pool: Pool, plain: Pool, planned_once_from: Revision) -> Self {
        Self {
            pool,
            plain,
            planned_once_from,
        }
    }

    /// Reads a page, where `head` is about the newest revision; the database gives up at
    /// the deadline.
    pub(crate) async fn page(
        &self,
        query: &PageQuery,
        head: Revision,
        deadline: Instant,
    ) -> Result<CallPage, ReadError> {
        let is_plain = is_plain(&query.view) && query.order.field == OrderField::CreatedAt
            || query.view == View::default();
        let pool = if is_plain && head >= self.planned_once_from {
            &self.plain
        } else {
            &self.pool
        };
        let rows: Vec<(Revision, i64, Option<CallRow>)> = pool
            .run(deadline, async |session: &Session| {
                session.rows(page_query(query)).await
            })
            .await?;
        let end = rows.as_slice().first();
        let position = end.map_or_else(Position::default, |&(revision, stamp, _)| Position {
            revision,
            stamp,
        });
        let mut calls: Vec<Call> = rows
            .into_iter()
            .filter_map(|(.., row)| row.map(Call::from))
            .collect();
        // A join keeps no order, so it is made again.
        calls.sort_unstable_by_key(|call| query.order.key(call));
        if query.order.descending {
            calls.reverse();
        }
        let has_more = calls.len() > query.limit;
        calls.truncate(query.limit);
        Ok(CallPage {
            calls,
            has_more,
            position,
        })
    }
}

fn page_query(page: &PageQuery) -> PageStatement<'_> {
    let order = OrderSql::of(page.order);
    let parts = in_view_in_parts(&page.view).into_iter();
    PageStatement {
        parts: parts.map(|part| after(part, page, &order)).collect(),
        order,
        limit: limit(page),
        is_common: is_common(&page.view),
    }
}

/// One more than the page has, to see whether another page follows.
fn limit(page: &PageQuery) -> i64 {
    i64::try_from(page.limit + 1).unwrap_or(i64::MAX)
}

/// The calls of the query that come after the page before.
fn after<'a>(query: CallQuery<'a>, page: &PageQuery, order: &OrderSql) -> CallQuery<'a> {
    let Some(PageKey { time, uid }) = page.after else {
        return query;
    };
    query.filter(
        Predicate::default()
            .sql(order.after)
            .time(to_sql_time(time))
            .sql(", ")
            .uid(uid)
            .sql(")"),
    )
}

/// An order in SQL.
struct OrderSql {
    /// What comes after a call, whose time and uid follow.
    after: &'static str,
    order_by: &'static str,
}

impl OrderSql {
    fn of(order: Order) -> Self {
        let (after, order_by) = match (order.field, order.descending) {
            (OrderField::CreatedAt, true) => (
                "(created_at, uid) < (",
                " ORDER BY created_at DESC, uid DESC",
            ),
            (OrderField::CreatedAt, false) => {
                ("(created_at, uid) > (", " ORDER BY created_at, uid")
            }
            (OrderField::UpdatedAt, true) => (
                "(updated_at, uid) < (",
                " ORDER BY updated_at DESC, uid DESC",
            ),
            (OrderField::UpdatedAt, false) => {
                ("(updated_at, uid) > (", " ORDER BY updated_at, uid")
            }
        };
        Self { after, order_by }
    }
}

/// A page beside the head of the log: one row with the head alone when the page
/// is empty.
struct PageStatement<'a> {
    /// The first calls of each part; the page is the first of them all.
    parts: Vec<CallQuery<'a>>,
    order: OrderSql,
    limit: i64,
    /// Connections keep such a statement prepared.
    is_common: bool,
}

impl PageStatement<'_> {
    /// Keeps the first calls in the page's order.
    fn push_first<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(self.order.order_by);
        out.push_sql(" LIMIT ");
        out.push_bind_param::<BigInt, _>(&self.limit)
    }
}

impl Query for PageStatement<'_> {
    type SqlType = (BigInt, BigInt, Nullable<t::SqlType>);
}

impl QueryId for PageStatement<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl QueryFragment<Pg> for PageStatement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        if !self.is_common {
            out.unsafe_to_cache_prepared();
        }
        out.push_sql("SELECT head.revision, head.stamp, page.* FROM ");
        out.push_sql(HEAD);
        out.push_sql(" LEFT JOIN (");
        for (n, part) in self.parts.iter().enumerate() {
            out.push_sql(if n == 0 { "(" } else { ") UNION ALL (" });
            QueryFragment::<Pg>::walk_ast(part, out.reborrow())?;
            self.push_first(out.reborrow())?;
        }
        out.push_sql(")");
        if self.parts.len() > 1 {
            self.push_first(out.reborrow())?;
        }
        out.push_sql(") page ON true");
        Ok(())
    }
}
