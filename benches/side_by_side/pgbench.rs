//! pgbench, which does with one row what a request does, on the same schema.

use crate::{
    Result,
    calls::{CLIENTS, FROM_NUMBERS, STAFF, TO_NUMBERS},
    postgres::Postgres,
    sample::{Metric, Sample},
    seed,
};

/// The script that it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// The row that a create writes, without a change log or an idempotency record.
    Insert,
    /// A look-up by primary key.
    Select,
    /// A status, and a row of the change log, in one transaction.
    Update,
}

const INSERT: &str = "
INSERT INTO voice_calls (uid, duration, created_at, updated_at, status, direction, staff_uid,
    client_uid, from_number, to_number, recording_url, call_summary, external_app_url, revision)
VALUES (gen_random_uuid(), 120, now(), now(), 'answered by staff', 'inbound',
    '5ca1ab1e-0000-4000-8000-' || lpad(:staff::text, 12, '0'),
    'c1ea0000-0000-4000-8000-' || lpad(:client::text, 12, '0'),
    '+1415' || lpad(:from_number::text, 7, '0'), '+1628' || lpad(:to_number::text, 7, '0'),
    'https://example.com/recording.mp3', 'Client called to ask about their account balance',
    'https://example.com/call-details', 1);
";

const SELECT: &str = "
SELECT * FROM voice_calls WHERE uid = ('00000000-0000-4000-8000-' || lpad(:n::text, 12, '0'))::uuid;
";

/// Revisions come from a sequence: cheaper than any counter, and not dense.
const UPDATE: &str = "
BEGIN;
UPDATE voice_calls SET
    status = CASE status WHEN 'missed' THEN 'answered by staff' ELSE 'missed' END::voice_call_status,
    updated_at = now(), revision = nextval('pgbench_revision')
WHERE uid = ('00000000-0000-4000-8000-' || lpad(:n::text, 12, '0'))::uuid;
INSERT INTO voice_call_changes (
    revision, stamp, changed_at, kind, transaction_end, old_values, uid, duration, created_at,
    updated_at, status, direction, staff_uid, client_uid, from_number, to_number,
    recording_url, call_summary, external_app_url, handled_by_staff_uid, handled_at)
SELECT revision, 1, now(), 'updated', true, '{\"status\": \"missed\"}', uid, duration, created_at,
    updated_at, status, direction, staff_uid, client_uid, from_number, to_number,
    recording_url, call_summary, external_app_url, handled_by_staff_uid, handled_at
FROM voice_calls WHERE uid = ('00000000-0000-4000-8000-' || lpad(:n::text, 12, '0'))::uuid;
COMMIT;
";

/// Prepares updates.
pub(crate) fn prepare(postgres: &Postgres, database: &str, calls: u64) -> Result<()> {
    let sql = format!(
        "CREATE SEQUENCE pgbench_revision START {}; \
         CREATE TABLE pgbench_changes PARTITION OF voice_call_changes \
             FOR VALUES FROM ({}) TO (MAXVALUE)",
        calls + 1,
        seed::partition_end(calls)
    );
    postgres.sql(database, &sql).map(drop)
}

/// The better of 16 and 64 clients.
pub(crate) fn best(
    postgres: &Postgres,
    database: &str,
    script: Script,
    calls: u64,
    seconds: f64,
) -> Result<Sample> {
    let text = match script {
        Script::Insert => INSERT,
        Script::Select => SELECT,
        Script::Update => UPDATE,
    };
    let random: String = [
        ("n", calls),
        ("staff", STAFF),
        ("client", CLIENTS),
        ("from_number", FROM_NUMBERS),
        ("to_number", TO_NUMBERS),
    ]
    .iter()
    .filter(|(name, _)| text.contains(&format!(":{name}:")))
    .map(|(name, count)| format!("\\set {name} random(1, {count})\n"))
    .collect();
    let script = format!("{random}{text}");
    let mut best = 0.0;
    for clients in ["16", "64"] {
        let seconds = format!("{}", seconds.ceil());
        let options = ["-c", clients, "-j", "2", "-T", &seconds];
        let text = postgres.pgbench(database, &script, &options)?;
        let rate = text
            .lines()
            .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        let rate: f64 = rate.ok_or_else(|| format!("pgbench printed no rate: {text}"))?;
        best = f64::max(best, rate);
    }
    Ok(Sample::of(Metric::Rate, best))
}
