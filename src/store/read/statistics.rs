//! Counts of calls, in groups: one statement, hence one snapshot. PostgreSQL computes the groups by
//! time in the requested time zone, so it also takes care of days with 23 and 25 hours.

use std::{collections::HashSet, sync::Arc};

use diesel::{
    data_types::PgTimestamp,
    pg::Pg,
    prelude::*,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_query,
    sql_types::{BigInt, Bool, Double, Nullable, Text, Timestamptz},
};
use tokio::{sync::OnceCell, time::Instant};

use super::filter_sql::in_view;
use crate::{
    domain::{
        Direction, Identifier, Revision, Status, View,
        stats::{Bucket, Group, GroupKey, Groups},
    },
    store::{
        change_log::log::HEAD,
        database::{Pool, Session},
        error::ReadError,
        schema::voice_calls as t,
        values::{from_sql_time, to_sql_time},
    },
};

/// A request for counts.
#[derive(Debug)]
pub struct StatsQuery {
    /// Of which calls.
    pub view: View,
    /// In which groups.
    pub groups: Groups,
    /// The name of the time zone of the buckets; one that is known.
    pub time_zone: String,
    /// After which group; `None`: the first page.
    pub after: Option<GroupKey>,
    /// How many groups at most.
    pub limit: usize,
}

/// Counts, and the newest revision in the snapshot they were read in.
#[derive(Debug)]
pub struct Stats {
    /// The groups, in order.
    pub groups: Vec<Group>,
    /// Whether there are groups after these.
    pub has_more: bool,
    /// The calls of all groups, those of other pages included.
    pub total_count: i64,
    /// The revision.
    pub revision: Revision,
}

/// Counts calls.
#[derive(Clone)]
pub(crate) struct Statistics {
    pool: Pool,
    /// The names of the time zones that the database knows, once asked for.
    time_zones: Arc<OnceCell<HashSet<String>>>,
}

impl Statistics {
    pub(crate) fn new(pool: Pool) -> Self {
        Self {
            pool,
            time_zones: Arc::default(),
        }
    }

    pub(crate) async fn count(
        &self,
        query: &StatsQuery,
        deadline: Instant,
    ) -> Result<Stats, ReadError> {
        let rows: Vec<Row> = self
            .pool
            .run(deadline, async |session: &Session| {
                let statement = Statement {
                    calls: in_view(&query.view).select((
                        t::created_at,
                        t::status,
                        t::direction,
                        t::staff_uid,
                        t::duration,
                        t::handled_at,
                    )),
                    query,
                    after: After::new(query),
                };
                session.rows(statement).await
            })
            .await?;
        let (revision, total_count) = rows
            .as_slice()
            .first()
            .map_or((0, 0), |(revision, total, _)| (*revision, *total));
        let groups = rows
            .into_iter()
            .filter_map(|(.., group)| group.map(group_of));
        let mut groups: Vec<Group> = groups.collect();
        let has_more = groups.len() > query.limit;
        groups.truncate(query.limit);
        Ok(Stats {
            groups,
            has_more,
            total_count,
            revision,
        })
    }

    /// Whether the database knows a time zone of this name.
    pub(crate) async fn knows_time_zone(
        &self,
        name: &str,
        deadline: Instant,
    ) -> Result<bool, ReadError> {
        let time_zones = self.time_zones.get_or_try_init(async || {
            let rows: Vec<TimeZone> = self
                .pool
                .run(deadline, async |session: &Session| {
                    session
                        .rows(sql_query("SELECT name FROM pg_timezone_names"))
                        .await
                })
                .await?;
            Ok(rows.into_iter().map(|zone| zone.name).collect())
        });
        Ok(time_zones.await?.contains(name))
    }
}

#[derive(QueryableByName)]
struct TimeZone {
    #[diesel(sql_type = Text)]
    name: String,
}

type GroupRow = (
    Option<PgTimestamp>,
    Option<String>,
    Option<String>,
    Option<String>,
    i64,
    i64,
    i64,
    Option<f64>,
    Option<f64>,
);
type GroupType = (
    Nullable<Timestamptz>,
    Nullable<Text>,
    Nullable<Text>,
    Nullable<Text>,
    BigInt,
    BigInt,
    BigInt,
    Nullable<Double>,
    Nullable<Double>,
);
type Row = (Revision, i64, Option<GroupRow>);

fn group_of(row: GroupRow) -> Group {
    let (bucket_start, status, direction, staff_uid, ..) = row;
    let (.., count, handled_count, total_duration_seconds, mean_duration, mean_to_handle) = row;
    Group {
        key: GroupKey {
            bucket_start: bucket_start.map(from_sql_time),
            status: status.as_deref().map(Status::from_word),
            direction: direction.as_deref().map(Direction::from_word),
            staff_uid: staff_uid.map(Identifier::assume_valid),
        },
        count,
        handled_count,
        total_duration_seconds,
        mean_duration_seconds: mean_duration,
        mean_seconds_to_handle: mean_to_handle,
    }
}

/// The statement: one row with revision and total alone when no group follows.
struct Statement<'a, Q> {
    calls: Q,
    query: &'a StatsQuery,
    after: Option<After<'a>>,
}

impl<Q> Query for Statement<'_, Q> {
    type SqlType = (BigInt, BigInt, Nullable<GroupType>);
}

impl<Q> QueryId for Statement<'_, Q> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for Statement<'_, Q> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        let groups = self.query.groups;
        out.push_sql("WITH counted AS (SELECT ");
        match groups.bucket {
            None => out.push_sql("NULL::timestamptz"),
            Some(bucket) => {
                out.push_sql("date_trunc('");
                out.push_sql(unit(bucket));
                out.push_sql("', created_at, ");
                out.push_bind_param::<Text, _>(&self.query.time_zone)?;
                out.push_sql(")");
            }
        }
        out.push_sql(" AS bucket_start");
        for (grouped, column, sql_type) in [
            (groups.status, "status", "voice_call_status"),
            (groups.direction, "direction", "voice_call_direction"),
            (groups.staff, "staff_uid", "text"),
        ] {
            let null = format!(", NULL::{sql_type} AS {column}");
            let own = format!(", {column}");
            out.push_sql(if grouped { &own } else { &null });
        }
        out.push_sql(
            ", count(*) AS count, count(handled_at) AS handled_count, \
             coalesce(sum(duration), 0)::bigint AS total_duration, \
             avg(duration)::float8 AS mean_duration, \
             avg(date_part('epoch', handled_at - created_at)) AS mean_to_handle FROM (",
        );
        self.calls.walk_ast(out.reborrow())?;
        out.push_sql(") calls");
        let places = places(groups);
        if !places.is_empty() {
            out.push_sql(" GROUP BY ");
            out.push_sql(&places);
        }
        out.push_sql(
            ") SELECT head.revision, total.count, bucket_start, p.status::text, p.direction::text, \
             staff_uid, p.count, handled_count, total_duration, mean_duration, mean_to_handle \
             FROM ",
        );
        out.push_sql(HEAD);
        out.push_sql(
            " CROSS JOIN (SELECT coalesce(sum(count), 0)::bigint AS count FROM counted) total \
             LEFT JOIN (SELECT * FROM counted p",
        );
        if let Some(after) = &self.after {
            after.walk_ast(out.reborrow())?;
        }
        out.push_sql(&format!(
            " ORDER BY {ORDER} LIMIT {}) p ON true ORDER BY {ORDER}",
            // One more than the page has, to see whether another page follows.
            self.query.limit + 1
        ));
        Ok(())
    }
}

/// The order of the groups in `counted` and in the page, both `p` here; what is absent comes last.
const ORDER: &str = "p.bucket_start, p.status, p.direction, p.staff_uid IS NULL, \
    coalesce(p.staff_uid, '')";

/// The predicate that a group comes after another one. Of what is not grouped by
/// there is one value only, which is not compared.
struct After<'a> {
    bucket_start: Option<PgTimestamp>,
    status: Option<&'a str>,
    direction: Option<&'a str>,
    /// Whether it is absent, and what it is.
    staff: Option<(bool, &'a str)>,
}

impl<'a> After<'a> {
    /// `None`: all groups.
    fn new(query: &'a StatsQuery) -> Option<Self> {
        let (groups, key) = (query.groups, query.after.as_ref()?);
        if groups == Groups::default() {
            return None;
        }
        let staff_uid = key.staff_uid.as_ref().map(Identifier::as_str);
        Some(Self {
            bucket_start: key.bucket_start.map(to_sql_time),
            status: key.status.as_ref().map(Status::word),
            direction: key.direction.as_ref().map(Direction::word),
            staff: groups
                .staff
                .then(|| (staff_uid.is_none(), staff_uid.unwrap_or_default())),
        })
    }
}

impl QueryFragment<Pg> for After<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let columns = [
            (self.bucket_start.is_some(), "bucket_start"),
            (self.status.is_some(), "status"),
            (self.direction.is_some(), "direction"),
            (
                self.staff.is_some(),
                "staff_uid IS NULL, coalesce(staff_uid, '')",
            ),
        ];
        let columns: Vec<_> = columns
            .into_iter()
            .filter_map(|(grouped, column)| grouped.then_some(column))
            .collect();
        out.push_sql(&format!(" WHERE ({}) > (", columns.join(", ")));
        let mut comma = "";
        let mut next = |out: &mut AstPass<'_, 'b, Pg>| {
            out.push_sql(comma);
            comma = ", ";
        };
        if let Some(bucket_start) = &self.bucket_start {
            next(&mut out);
            out.push_bind_param::<Timestamptz, _>(bucket_start)?;
        }
        if let Some(status) = &self.status {
            next(&mut out);
            out.push_bind_param::<Text, _>(status)?;
            out.push_sql("::voice_call_status");
        }
        if let Some(direction) = &self.direction {
            next(&mut out);
            out.push_bind_param::<Text, _>(direction)?;
            out.push_sql("::voice_call_direction");
        }
        if let Some((is_absent, staff_uid)) = &self.staff {
            next(&mut out);
            out.push_bind_param::<Bool, _>(is_absent)?;
            out.push_sql(", ");
            out.push_bind_param::<Text, _>(staff_uid)?;
        }
        out.push_sql(")");
        Ok(())
    }
}

/// The places of what is grouped by in the list of columns.
fn places(groups: Groups) -> String {
    let places = [
        (groups.bucket.is_some(), "1"),
        (groups.status, "2"),
        (groups.direction, "3"),
        (groups.staff, "4"),
    ];
    let places = places
        .into_iter()
        .filter_map(|(grouped, place)| grouped.then_some(place));
    places.collect::<Vec<_>>().join(", ")
}

fn unit(bucket: Bucket) -> &'static str {
    match bucket {
        Bucket::Hour => "hour",
        Bucket::Day => "day",
        Bucket::Week => "week",
        Bucket::Month => "month",
    }
}
