//! Pages of calls: keyset pagination, each page and the revision it is true at
//! in one statement, hence one snapshot.

use std::time::Duration;

use diesel::{
    dsl::sql,
    pg::Pg,
    prelude::*,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{BigInt, Bool, Nullable, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::{
    AsyncPgConnection, RunQueryDsl,
    pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod, deadpool},
};
use futures_util::{FutureExt, future};
use tokio::time::Instant;
use tracing::{error, warn};

use super::{
    availability::Availability,
    connection::{Connector, Role},
    error::{ReadError, is_lost},
    filter_sql::filtered,
    outcome,
    row::{CallRow, to_sql_time},
    schema::voice_calls as t,
};
use crate::domain::{
    Call, Filter, Revision,
    list::{Order, OrderField, PageKey},
};

/// Which page is wanted.
#[derive(Debug)]
pub struct PageQuery {
    /// Which calls.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// After which call; `None`: the first page.
    pub after: Option<PageKey>,
    /// How many calls at most.
    pub limit: usize,
}

/// Calls, and the newest revision in the snapshot they were read in.
#[derive(Debug)]
pub struct Page {
    /// The calls, in order.
    pub calls: Vec<Call>,
    /// The revision.
    pub revision: Revision,
}

/// Reads pages over a bounded pool of connections.
#[derive(Clone)]
pub(super) struct Lists {
    pool: deadpool::Pool<AsyncPgConnection>,
    availability: Availability,
}

impl Lists {
    pub(super) fn new(
        connector: &Connector,
        availability: &Availability,
        connections: usize,
    ) -> Self {
        let connector = connector.clone();
        let mut config = ManagerConfig::default();
        config.recycling_method = RecyclingMethod::Fast;
        config.custom_setup = Box::new(move |_| {
            let connector = connector.clone();
            async move {
                let connection = connector.connect(Role::List).await;
                let mut connection = connection
                    .map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
                // Filters have too many shapes to keep a statement for each.
                diesel_async::AsyncConnection::set_prepared_statement_cache_size(
                    &mut connection,
                    diesel::connection::CacheSize::Disabled,
                );
                Ok(connection)
            }
            .boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config("", config);
        let pool = deadpool::Pool::builder(manager)
            .max_size(connections)
            .build();
        Self {
            pool: pool.expect("a pool without timeouts needs no runtime"),
            availability: availability.clone(),
        }
    }

    /// Reads a page; the database gives up at the deadline.
    pub(super) async fn page(
        &self,
        query: &PageQuery,
        deadline: Instant,
    ) -> Result<Page, ReadError> {
        let rows: Vec<(Revision, Option<CallRow>)> = self
            .run(deadline, async |connection: &AsyncPgConnection| {
                page_query(query).load(&mut &*connection).await
            })
            .await?;
        let revision = rows.as_slice().first().map_or(0, |(revision, _)| *revision);
        let mut calls: Vec<Call> = rows
            .into_iter()
            .filter_map(|(_, row)| row.map(Call::from))
            .collect();
        // A join keeps no order, so it is made again.
        calls.sort_unstable_by_key(|call| query.order.key(call));
        if query.order.descending {
            calls.reverse();
        }
        Ok(Page { calls, revision })
    }

    /// The newest revision in the log.
    pub(super) async fn head(&self, deadline: Instant) -> Result<Revision, ReadError> {
        self.run(deadline, async |connection: &AsyncPgConnection| {
            outcome::head(connection).await
        })
        .await
    }

    /// Runs a statement under a statement_timeout that ends at the deadline,
    /// which is set in the same round trip.
    async fn run<T>(
        &self,
        deadline: Instant,
        statement: impl AsyncFnOnce(&AsyncPgConnection) -> QueryResult<T>,
    ) -> Result<T, ReadError> {
        if !self.availability.is_up() {
            return Err(ReadError::Unavailable);
        }
        let connection = tokio::time::timeout_at(deadline, self.pool.get())
            .await
            .map_err(|_| ReadError::DeadlineExceeded)?
            .map_err(|_| {
                self.availability.report_down();
                ReadError::Unavailable
            })?;
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = set_timeout(&connection, left);
        match future::try_join(timeout, statement(&connection)).await {
            Ok(((), value)) => Ok(value),
            Err(error) if is_lost(&connection, &error).await => {
                warn!("a list lost its connection to the database");
                self.availability.report_down();
                Err(ReadError::Unavailable)
            }
            Err(_) if Instant::now() >= deadline => Err(ReadError::DeadlineExceeded),
            Err(error) => {
                error!(%error, "the database refuses a list");
                Err(ReadError::Internal)
            }
        }
    }
}

async fn set_timeout(connection: &AsyncPgConnection, left: Duration) -> QueryResult<()> {
    // Rounded up: an error before the deadline is taken for the database's own.
    let millis = left.as_millis().saturating_add(1).min(3_600_000);
    diesel::sql_query(format!("SET statement_timeout = {millis}"))
        .execute(&mut &*connection)
        .await
        .map(|_| ())
}

fn page_query(page: &PageQuery) -> WithHead<impl QueryFragment<Pg> + Send> {
    let mut query = filtered(&page.filter).limit(i64::try_from(page.limit).unwrap_or(i64::MAX));
    if let Some(PageKey { time, uid }) = page.after {
        let bound = match (page.order.field, page.order.descending) {
            (OrderField::CreatedAt, true) => "(created_at, uid) < (",
            (OrderField::CreatedAt, false) => "(created_at, uid) > (",
            (OrderField::UpdatedAt, true) => "(updated_at, uid) < (",
            (OrderField::UpdatedAt, false) => "(updated_at, uid) > (",
        };
        query = query.filter(
            sql::<Bool>(bound)
                .bind::<Timestamptz, _>(to_sql_time(time))
                .sql(", ")
                .bind::<SqlUuid, _>(uid)
                .sql(")"),
        );
    }
    query = match (page.order.field, page.order.descending) {
        (OrderField::CreatedAt, true) => query.order((t::created_at.desc(), t::uid.desc())),
        (OrderField::CreatedAt, false) => query.order((t::created_at, t::uid)),
        (OrderField::UpdatedAt, true) => query.order((t::updated_at.desc(), t::uid.desc())),
        (OrderField::UpdatedAt, false) => query.order((t::updated_at, t::uid)),
    };
    WithHead { page: query }
}

/// A page beside the head of the log: one row with the head alone when the page
/// is empty.
struct WithHead<Q> {
    page: Q,
}

impl<Q> Query for WithHead<Q> {
    type SqlType = (BigInt, Nullable<t::SqlType>);
}

impl<Q> QueryId for WithHead<Q> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for WithHead<Q> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        out.push_sql(
            "SELECT head.revision, page.* FROM \
             (SELECT coalesce(max(revision), 0) AS revision FROM voice_call_changes) head \
             LEFT JOIN (",
        );
        self.page.walk_ast(out.reborrow())?;
        out.push_sql(") page ON true");
        Ok(())
    }
}
