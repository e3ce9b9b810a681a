//! Vacuums the tables after purges: the versions of rows that a purge made dead stay in
//! their files until then. `erased_at` of a purged call says when it was done.
//!
//! VACUUM leaves what an open transaction may still see, and does not say so. But with FREEZE it
//! says what it has come to: no transaction before a table's `relfrozenxid` is named in it any
//! more. A purge is erased when that is past the transaction that wrote the purge's row in
//! `purged_calls`, in every table that the purge touched. It needs no privileges to look, and holds
//! whatever kept the dead rows: a transaction here, a prepared one, a replication slot, a standby.
//!
//! It is deliberately apart from the upkeep of partitions, which must not wait for it.

use std::time::{Duration, Instant};

use diesel::{
    QueryResult, QueryableByName, sql_query,
    sql_types::{Array, BigInt, Bool, Nullable, Oid, Text, Uuid as SqlUuid},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    domain::{Revision, Uuid},
    store::{
        database::{Availability, Connector, Lock, Role, Session},
        error::OpenError,
    },
};

/// Between two looks for purges; a run that took longer is followed by a pause as long.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Between two lines in the log about purges that cannot be erased.
const SAY_EVERY: Duration = Duration::from_secs(600);

/// The result of a look for purges.
enum Look {
    /// There was nothing to do, or another process does it.
    Nothing,
    /// So many were erased.
    Erased(usize),
    /// Something may still see the rows.
    Held,
}

/// The task: owned by the store, ends with `stop`.
pub(crate) async fn keep(
    connector: Connector,
    availability: Availability,
    stop: CancellationToken,
) {
    let mut said_at = None;
    loop {
        let started = Instant::now();
        let look = tokio::select! {
            () = stop.cancelled() => return,
            look = look(&connector) => look,
        };
        match look {
            Ok(Look::Nothing) => said_at = None,
            Ok(Look::Erased(calls)) => info!(calls, "vacuumed the tables after purges"),
            Ok(Look::Held) => {
                if said_at.is_none_or(|at: Instant| at.elapsed() >= SAY_EVERY) {
                    said_at = Some(started);
                    warn!(
                        "purged calls cannot be vacuumed yet, because something may still see \
                         them: pg_stat_activity (backend_xmin), pg_prepared_xacts, \
                         pg_replication_slots (xmin) and pg_stat_replication show what"
                    );
                }
            }
            Err(error @ OpenError::NoConnectionLeft { .. }) => {
                availability.no_session("vacuuming after purges", error);
            }
            Err(error) => {
                if availability.is_up() {
                    let error = error.reason();
                    warn!(error, "cannot vacuum the tables after purges; retrying");
                }
            }
        }
        let pause = LOOK_EVERY.max(started.elapsed());
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

async fn look(connector: &Connector) -> Result<Look, OpenError> {
    let session = connector.connect(Role::Vacuum).await?;
    let look = erase(&session).await;
    look.map_err(|error| OpenError::Connect(error.to_string()))
}

/// Erases what can be, on a session whose lock goes with it.
async fn erase(session: &Session) -> QueryResult<Look> {
    let wanted = "SELECT EXISTS (SELECT FROM purged_calls WHERE erased_at IS NULL) AS answer";
    if !holds(session, wanted).await? || !Lock::Erasure.try_take(session).await? {
        return Ok(Look::Nothing);
    }
    // What keeps dead rows in this table, of one row, keeps them in all.
    vacuum(session, "feed").await?;
    let Some(newest) = newest_unseen(session).await? else {
        return Ok(Look::Held);
    };
    forget_fingerprints(session, newest).await?;
    let tables = tables(session, newest).await?;
    for table in &tables {
        vacuum(session, &table.name).await?;
    }
    refresh_samples(session).await?;
    let erased = mark_erased(session, newest, &tables).await?;
    Ok(if erased == 0 {
        Look::Held
    } else {
        Look::Erased(erased)
    })
}

/// Removes the fingerprints of requests that named a purged call and changed nothing: the purge
/// itself finds requests by the changes that they made. A request whose response had no call
/// keeps its own: there is nothing of the call in it.
///
/// It makes dead rows later than the purge did. So it also writes the purge's row in
/// `purged_calls` again: the transaction of that row is the last one of which nothing may be
/// left.
async fn forget_fingerprints(session: &Session, newest: Revision) -> QueryResult<()> {
    let query = "WITH forgotten AS ( \
            UPDATE idempotency_records r SET fingerprint = $2 FROM purged_calls p \
            WHERE p.erased_at IS NULL AND p.revision <= $1 AND r.uid = p.uid \
                AND r.fingerprint <> $2 AND (r.revision, r.change_count) <> (0, 0) \
            RETURNING r.uid \
        ) \
        UPDATE purged_calls SET revision = revision WHERE uid IN (SELECT uid FROM forgotten)";
    let query = sql_query(query)
        .bind::<BigInt, _>(newest)
        .bind::<SqlUuid, _>(Uuid::nil());
    session.execute(query).await.map(drop)
}

/// Takes the planner's samples anew of what is in no table of its own, and vacuums the
/// samples themselves. Autovacuum never takes them of partitioned tables, but somebody may
/// have.
async fn refresh_samples(session: &Session) -> QueryResult<()> {
    for parent in ["voice_call_changes", "idempotency_records"] {
        let query = format!(
            "SELECT EXISTS (SELECT FROM pg_stats WHERE schemaname = current_schema() \
             AND tablename = '{parent}') AS answer"
        );
        if holds(session, &query).await? {
            session.batch(&format!("ANALYZE {parent}")).await?;
        }
    }
    let owns_database = "SELECT pg_has_role(datdba, 'USAGE') AS answer FROM pg_database \
        WHERE datname = current_database()";
    if holds(session, owns_database).await? {
        let vacuum = "VACUUM (TRUNCATE false) pg_catalog.pg_statistic";
        session.batch(vacuum).await?;
    }
    Ok(())
}

/// With ANALYZE, because the planner's samples hold what was in the columns. Without the end
/// of a table being cut off, which takes a lock that readers wait for.
async fn vacuum(session: &Session, table: &str) -> QueryResult<()> {
    let vacuum =
        format!("VACUUM (FREEZE, ANALYZE, INDEX_CLEANUP auto, TRUNCATE false, PARALLEL 0) {table}");
    session.batch(&vacuum).await
}

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    answer: bool,
}

async fn holds(session: &Session, query: &str) -> QueryResult<bool> {
    let row: Answer = session.row(sql_query(query)).await?;
    Ok(row.answer)
}

#[derive(QueryableByName)]
struct Newest {
    #[diesel(sql_type = Nullable<BigInt>)]
    newest: Option<Revision>,
}

/// The newest purge whose rows nothing can see any more.
async fn newest_unseen(session: &Session) -> QueryResult<Option<Revision>> {
    // Nor before a partition that is being dropped has gone: a purge does not reach it any
    // more, and it holds the calls as they were.
    let query = "SELECT max(revision) AS newest FROM purged_calls WHERE erased_at IS NULL \
        AND age(xmin) > (SELECT age(relfrozenxid) FROM pg_class WHERE oid = 'feed'::regclass) \
        AND NOT EXISTS ( \
            SELECT FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid \
            WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' \
                AND c.relname ~ '^voice_call_changes_[0-9]' \
                AND (i.inhrelid IS NULL OR i.inhdetachpending) \
        )";
    let row: Newest = session.row(sql_query(query)).await?;
    Ok(row.newest)
}

#[derive(QueryableByName)]
struct Table {
    #[diesel(sql_type = Oid)]
    oid: u32,
    #[diesel(sql_type = Text)]
    name: String,
}

/// The tables that the purges up to this one touched.
async fn tables(session: &Session, newest: Revision) -> QueryResult<Vec<Table>> {
    let query = "SELECT c.oid, c.oid::regclass::text AS name FROM pg_class c \
        WHERE c.oid = 'voice_calls'::regclass \
        OR c.oid IN (SELECT inhrelid FROM pg_inherits \
            WHERE inhparent = 'idempotency_records'::regclass) \
        OR c.oid IN (SELECT l.tableoid FROM purged_calls p JOIN voice_call_changes l USING (uid) \
            WHERE p.erased_at IS NULL AND p.revision <= $1)";
    let query = sql_query(query).bind::<BigInt, _>(newest);
    session.rows(query).await
}

/// Takes note of the purges whose dead rows have left all the tables, with those of the
/// long texts that are kept apart.
async fn mark_erased(session: &Session, newest: Revision, tables: &[Table]) -> QueryResult<usize> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let query = "UPDATE purged_calls SET erased_at = clock_timestamp() \
        WHERE erased_at IS NULL AND revision <= $1 AND age(xmin) > ( \
            SELECT max(age(c.relfrozenxid)) FROM pg_class t \
            JOIN pg_class c ON c.oid IN (t.oid, t.reltoastrelid) WHERE t.oid = ANY ($2) \
        )";
    let query = sql_query(query)
        .bind::<BigInt, _>(newest)
        .bind::<Array<Oid>, _>(oids);
    session.execute(query).await
}
