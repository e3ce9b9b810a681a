//! What must be true of every database that the service has written to.

use std::collections::HashMap;

use tokio_postgres::{Client, Row};
use voicecall::proto::VoiceCall;

const STATE: &str = "uid, duration, created_at, updated_at, status, direction, staff_uid, client_uid, \
    from_number, to_number, recording_url, call_summary, external_app_url, handled_by_staff_uid, \
    handled_at, deleted_at, revision";

/// Checks the change log against itself, against the calls, and against the acknowledged
/// writes; returns its head.
pub(crate) async fn check_ledger(database: &Client, acknowledged: &[VoiceCall]) -> i64 {
    let number = async |sql: &str| -> i64 { database.query_one(sql, &[]).await.expect(sql).get(0) };
    let changes = "FROM voice_call_changes";
    // In one statement: requests that were given up may be committed meanwhile.
    let sql = format!("SELECT coalesce(max(revision), 0), count(DISTINCT revision) {changes}");
    let row = database.query_one(&sql, &[]).await.expect("it answers");
    let (head, count): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(count, head, "revisions are 1 to N without a gap");

    let folded = format!(
        "SELECT {STATE} FROM (SELECT DISTINCT ON (uid) * {changes} ORDER BY uid, revision DESC) last \
         WHERE kind <> 'purged'"
    );
    for (a, b) in [("table", "log"), ("log", "table")] {
        let of = |name| match name {
            "table" => format!("SELECT {STATE} FROM voice_calls"),
            _ => folded.clone(),
        };
        let sql = format!(
            "SELECT count(*) FROM ({} EXCEPT ALL {}) difference",
            of(a),
            of(b)
        );
        assert_eq!(
            number(&sql).await,
            0,
            "states in the {a} that are not in the {b}"
        );
    }

    // A purge leaves nothing of a call but that it was.
    let chain = format!(
        "SELECT count(*) FROM (SELECT old_values, kind, updated_at, changed_at, \
            bool_or(kind = 'purged') OVER (PARTITION BY uid) AS is_purged, \
            lag(revision) OVER call AS before, lag(changed_at) OVER log AS earlier {changes} \
            WINDOW call AS (PARTITION BY uid ORDER BY revision), log AS (ORDER BY revision)) c \
         WHERE (kind = 'created' AND before IS NOT NULL) \
            OR (kind NOT IN ('created', 'imported') AND before IS NULL) \
            OR (NOT is_purged AND (old_values->>'revision')::bigint IS DISTINCT FROM before) \
            OR (kind <> 'imported' AND updated_at <> changed_at) OR changed_at < earlier"
    );
    assert_eq!(
        number(&chain).await,
        0,
        "changes that do not follow the one before"
    );
    let twice = format!(
        "SELECT count(*) FROM (SELECT 1 {changes} WHERE request_id IS NOT NULL AND transaction_end \
         GROUP BY request_id HAVING count(*) > 1) twice"
    );
    assert_eq!(number(&twice).await, 0, "requests that were applied twice");

    check_acknowledged(database, acknowledged).await;
    head
}

/// Checks that every acknowledged state is in the log.
async fn check_acknowledged(database: &Client, acknowledged: &[VoiceCall]) {
    let sql = "SELECT revision, uid::text, status::text, duration, \
        (extract(epoch FROM updated_at) * 1000000)::bigint, deleted_at IS NOT NULL, handled_by_staff_uid \
        FROM voice_call_changes";
    let log: HashMap<i64, _> = database
        .query(sql, &[])
        .await
        .expect("the log is there")
        .into_iter()
        .map(|row| (row.get::<_, i64>(0), row))
        .collect();
    let is_logged = |call: &&VoiceCall| {
        let row = log.get(&call.revision);
        row.is_some_and(|row| is_same(call, row))
    };
    let lost: Vec<(i64, &str)> = acknowledged
        .iter()
        .filter(|call| !is_logged(call))
        .map(|call| (call.revision, call.uid.as_str()))
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {} acknowledged states are not in the log, among them {:?}",
        lost.len(),
        acknowledged.len(),
        &lost[..lost.len().min(10)]
    );
}

/// Whether a change in the log led to this state. A change without content, because the call
/// was purged later, may have.
fn is_same(call: &VoiceCall, row: &Row) -> bool {
    let is_blank = row.get::<_, Option<&str>>(2).is_none();
    if is_blank {
        return row.get::<_, &str>(1) == call.uid;
    }
    let updated_at = call.updated_at.expect("always set");
    let status = call
        .status()
        .as_str_name()
        .replace("VOICE_CALL_STATUS_", "");
    row.get::<_, &str>(1) == call.uid
        && row.get::<_, &str>(2).replace(' ', "_").to_uppercase() == status
        && row.get::<_, Option<i32>>(3) == call.duration
        && row.get::<_, i64>(4)
            == updated_at.seconds * 1_000_000 + i64::from(updated_at.nanos) / 1_000
        && row.get::<_, bool>(5) == call.deleted_at.is_some()
        && row.get::<_, Option<&str>>(6) == call.handled_by_staff_uid.as_deref()
}
