//! A record of every change that retention does not reach: a trigger writes it in the
//! transaction of the change. When the storm is over, the log is made of it as it would be
//! if nothing had ever left it.

use std::time::SystemTime;

use tokio_postgres::Client as Database;

use crate::support::micros;

/// The rule by which the database refuses some imported records is here too.
const RECORD: &str = "
    CREATE TABLE recorded_changes (LIKE voice_call_changes);
    CREATE FUNCTION record_changes() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO recorded_changes SELECT * FROM added;
        RETURN NULL;
    END;
    $$;
    CREATE TRIGGER record_changes AFTER INSERT ON voice_call_changes
        REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION record_changes();
    ALTER TABLE voice_calls ADD CHECK (staff_uid <> 'poison');";

/// A purge leaves nothing of the call's earlier changes but that they were.
const RESTORE: &str = "
    DO $$
    DECLARE
        part regclass;
        next bigint;
    BEGIN
        FOR part IN
            SELECT inhrelid::regclass FROM pg_inherits
            WHERE inhparent = 'voice_call_changes'::regclass
        LOOP
            EXECUTE format('DROP TABLE %s', part);
        END LOOP;
        SELECT max(revision) + 1 INTO next FROM recorded_changes;
        EXECUTE format(
            'CREATE TABLE voice_call_changes_%s_%s PARTITION OF voice_call_changes
                FOR VALUES FROM (1) TO (%s)',
            lpad('1', 16, '0'), lpad(next::text, 16, '0'), next
        );
    END;
    $$;
    DROP TRIGGER record_changes ON voice_call_changes;
    INSERT INTO voice_call_changes SELECT * FROM recorded_changes;
    UPDATE voice_call_changes c SET
        old_values = NULL, duration = NULL, created_at = NULL, updated_at = NULL,
        status = NULL, direction = NULL, staff_uid = NULL, client_uid = NULL,
        from_number = NULL, to_number = NULL, recording_url = NULL, call_summary = NULL,
        external_app_url = NULL, handled_by_staff_uid = NULL, handled_at = NULL,
        deleted_at = NULL
        FROM purged_calls p WHERE c.uid = p.uid AND c.kind <> 'purged';
    DELETE FROM voice_call_batches;
    INSERT INTO voice_call_batches (last_revision, stamp, committed_at)
        SELECT max(revision), stamp, max(changed_at) FROM voice_call_changes GROUP BY stamp;
    UPDATE feed SET oldest_revision = 0;";

/// Begins to record.
pub(super) async fn record(database: &Database) {
    database.batch_execute(RECORD).await.expect("it is new");
}

/// Puts back what has left the log. No replica runs any more.
pub(super) async fn restore(database: &Database) {
    database.batch_execute(RESTORE).await.expect("it may");
}

/// The last recorded revision.
pub(super) async fn head(database: &Database) -> i64 {
    let query = "SELECT coalesce(max(revision), 0) FROM recorded_changes";
    let row = database.query_one(query, &[]).await.expect("it answers");
    row.get(0)
}

/// The oldest revision that the service says it still has.
pub(super) async fn oldest(database: &Database) -> i64 {
    let query = "SELECT oldest_revision FROM feed";
    let row = database.query_one(query, &[]).await.expect("it answers");
    row.get(0)
}

/// How far ahead of the true time the last change is, in microseconds.
pub(super) async fn micros_ahead(database: &Database) -> i64 {
    let query = "SELECT (extract(epoch FROM max(changed_at)) * 1000000)::bigint \
        FROM recorded_changes";
    let row = database.query_one(query, &[]).await.expect("it answers");
    row.get::<_, i64>(0) - micros(Some(SystemTime::now().into()))
}

/// How many calls there were that were not deleted, at each revision from 0 on.
pub(super) async fn counts(database: &Database) -> Vec<i64> {
    let query = "
        SELECT coalesce(sum(now.is_there::int - now.was_there::int)
            OVER (ORDER BY revision), 0)::bigint
        FROM (
            SELECT revision, is_there,
                coalesce(lag(is_there) OVER (PARTITION BY uid ORDER BY revision), false) AS was_there
            FROM (
                SELECT revision, uid, kind <> 'purged' AND deleted_at IS NULL AS is_there
                FROM recorded_changes
            ) changes
        ) now
        ORDER BY revision";
    let rows = database.query(query, &[]).await.expect("it answers");
    let counts = rows.iter().map(|row| row.get(0));
    std::iter::once(0).chain(counts).collect()
}
