//! Partitions: how they are found, made and dropped without stopping a writer.
//!
//! One is made beside its table and attached, and detached concurrently before it is
//! dropped, because the plain forms of either lock the whole table. A detachment that was
//! broken off (a transaction had read the table, and the wait for it has an end) stays
//! pending, and is finished later: a DROP before that would lock the table.

use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{Bool, Nullable, Text},
};

use crate::store::database::Session;

/// What a partition is to its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Attached,
    /// On its way out.
    DetachPending,
    Detached,
}

/// A partition, or what was one.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) name: String,
    pub(crate) link: Link,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Nullable<Bool>)]
    detach_pending: Option<bool>,
}

/// The partitions of a table whose names match a pattern.
pub(crate) async fn of(
    session: &Session,
    table: &str,
    pattern: &str,
) -> QueryResult<Vec<Partition>> {
    let query = sql_query(format!(
        "SELECT c.relname::text AS name, i.inhdetachpending AS detach_pending \
         FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid \
         WHERE c.relkind = 'r' AND c.relname ~ '^{pattern}$' \
         AND c.relnamespace = \
             (SELECT relnamespace FROM pg_class WHERE oid = '{table}'::regclass)"
    ));
    let rows: Vec<Row> = session.rows(query).await?;
    let partition = |Row {
                         name,
                         detach_pending,
                     }| Partition {
        name,
        link: match detach_pending {
            None => Link::Detached,
            Some(true) => Link::DetachPending,
            Some(false) => Link::Attached,
        },
    };
    Ok(rows.into_iter().map(partition).collect())
}

/// Makes the partition of `table` that holds what is between two bounds of `column`.
pub(crate) async fn make(
    session: &Session,
    table: &str,
    name: &str,
    column: &str,
    (from, to): (&str, &str),
) -> QueryResult<()> {
    // The check spares the attaching a look at the rows, and the default a lock.
    session
        .batch(&format!(
            "CREATE TABLE IF NOT EXISTS {name} (LIKE {table} INCLUDING ALL); \
             ALTER TABLE {name} REPLICA IDENTITY {identity}; \
             ALTER TABLE {name} DROP CONSTRAINT IF EXISTS {name}_range; \
             ALTER TABLE {name} ADD CONSTRAINT {name}_range \
                 CHECK ({column} >= {from} AND {column} < {to}); \
             ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to}); \
             ALTER TABLE {name} DROP CONSTRAINT {name}_range;",
            identity = if table == "idempotency_records" {
                "FULL"
            } else {
                "DEFAULT"
            },
        ))
        .await
}

/// Drops a partition; one that somebody still reads is left for another time, with an
/// error.
pub(crate) async fn drop_partition(
    session: &Session,
    table: &str,
    Partition { name, link }: &Partition,
) -> QueryResult<()> {
    match link {
        Link::Attached => {
            let detach = format!("ALTER TABLE {table} DETACH PARTITION {name} CONCURRENTLY");
            session.batch(&detach).await?;
        }
        Link::DetachPending => {
            let finish = format!("ALTER TABLE {table} DETACH PARTITION {name} FINALIZE");
            session.batch(&finish).await?;
        }
        Link::Detached => {}
    }
    session.batch(&format!("DROP TABLE {name}")).await
}
