-- Calls 1 to :calls and the changes that created them, as the service would have
-- written them in six days, which is within the log's retention. Indexes are made
-- afterwards, which is several times faster than to keep them.

SET synchronous_commit = off;
SET maintenance_work_mem = '512MB';

CREATE TEMP TABLE dropped AS
SELECT indexrelid::regclass::text AS name,
    replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON ') AS definition
FROM pg_index
WHERE indrelid IN ('voice_calls'::regclass, 'voice_call_changes'::regclass)
    AND NOT indisprimary;
SELECT format('DROP INDEX %s', name) FROM dropped \gexec

-- The log's first partition reaches as far as a new database's does.
SELECT format('CREATE TABLE voice_call_changes_%s_%s PARTITION OF voice_call_changes
        FOR VALUES FROM (%s) TO (%s)',
    lpad(made::text, 16, '0'), lpad(:partition_end::text, 16, '0'), made, :partition_end)
FROM (
    SELECT max(substring(inhrelid::regclass::text, '[0-9]+$')::bigint) AS made
    FROM pg_inherits WHERE inhparent = 'voice_call_changes'::regclass
) partitions
WHERE made < :partition_end \gexec

INSERT INTO voice_call_changes (
    revision, stamp, changed_at, kind, transaction_end, uid, duration, created_at, updated_at,
    status, direction, staff_uid, client_uid, from_number, to_number,
    recording_url, call_summary, external_app_url, handled_by_staff_uid, handled_at
)
SELECT
    n, hashint8extended(n / 1000, 0), at, 'created', true,
    ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, n % 3600, at, at,
    -- One in five is missed, half of these handled.
    (CASE WHEN n % 10 < 2 THEN 'missed' WHEN n % 10 < 9 THEN 'answered by staff'
        ELSE 'answered by vonage' END)::voice_call_status,
    (CASE WHEN n % 3 = 0 THEN 'outbound' ELSE 'inbound' END)::voice_call_direction,
    '5ca1ab1e-0000-4000-8000-' || lpad((n % :staff)::text, 12, '0'),
    'c1ea0000-0000-4000-8000-' || lpad((n % :clients)::text, 12, '0'),
    '+1415' || lpad((n % :from_numbers)::text, 7, '0'),
    '+1628' || lpad((n % :to_numbers)::text, 7, '0'),
    'https://example.com/recording.mp3',
    'Client called to ask about their account balance',
    'https://example.com/call-details',
    CASE WHEN n % 10 = 1 THEN '5ca1ab1e-0000-4000-8000-' || lpad((n % :staff)::text, 12, '0') END,
    CASE WHEN n % 10 = 1 THEN at END
FROM generate_series(1::bigint, :calls) n,
    LATERAL (SELECT now() - interval '6 days' * (1 - n::double precision / :calls) AS at) times;

INSERT INTO voice_calls (
    uid, duration, created_at, updated_at, status, direction, staff_uid, client_uid,
    from_number, to_number, recording_url, call_summary, external_app_url,
    handled_by_staff_uid, handled_at, revision
)
SELECT
    uid, duration, created_at, updated_at, status, direction, staff_uid, client_uid,
    from_number, to_number, recording_url, call_summary, external_app_url,
    handled_by_staff_uid, handled_at, revision
FROM voice_call_changes;

INSERT INTO voice_call_batches (last_revision, stamp, committed_at)
SELECT max(revision), stamp, max(changed_at) FROM voice_call_changes GROUP BY stamp;

SELECT definition FROM dropped \gexec
VACUUM (ANALYZE) voice_calls, voice_call_changes, voice_call_batches;
CHECKPOINT;
