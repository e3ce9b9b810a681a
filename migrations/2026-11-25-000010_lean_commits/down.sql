-- The CHECKs, the indexes and the function as they were.

DROP INDEX voice_calls_by_time, voice_calls_by_update, voice_calls_by_staff,
    voice_calls_by_client, voice_calls_by_from_number, voice_calls_by_to_number,
    voice_calls_to_handle;
DROP FUNCTION text_keys;

ALTER TABLE voice_calls
    ALTER COLUMN duration TYPE integer,
    ALTER COLUMN created_at TYPE timestamptz,
    ALTER COLUMN updated_at TYPE timestamptz,
    ALTER COLUMN staff_uid TYPE text,
    ALTER COLUMN client_uid TYPE text,
    ALTER COLUMN from_number TYPE text,
    ALTER COLUMN to_number TYPE text,
    ALTER COLUMN recording_url TYPE text,
    ALTER COLUMN call_summary TYPE text,
    ALTER COLUMN external_app_url TYPE text,
    ALTER COLUMN handled_by_staff_uid TYPE text,
    ALTER COLUMN handled_at TYPE timestamptz,
    ALTER COLUMN deleted_at TYPE timestamptz,
    ALTER COLUMN revision TYPE bigint,
    ADD CHECK (duration >= 0),
    ADD CHECK (isfinite(created_at)),
    ADD CHECK (isfinite(updated_at)),
    ADD CHECK (char_length(staff_uid) BETWEEN 1 AND 64),
    ADD CHECK (char_length(client_uid) BETWEEN 1 AND 64),
    ADD CHECK (char_length(from_number) BETWEEN 1 AND 64),
    ADD CHECK (char_length(to_number) BETWEEN 1 AND 64),
    ADD CHECK (octet_length(recording_url) BETWEEN 1 AND 2048),
    ADD CHECK (octet_length(call_summary) BETWEEN 1 AND 65536),
    ADD CHECK (octet_length(external_app_url) BETWEEN 1 AND 2048),
    ADD CHECK (char_length(handled_by_staff_uid) BETWEEN 1 AND 64),
    ADD CHECK (isfinite(handled_at)),
    ADD CHECK (isfinite(deleted_at)),
    ADD CHECK (revision > 0);

DROP DOMAIN voice_call_seconds, voice_call_time, voice_call_name, voice_call_url,
    voice_call_summary, voice_call_revision;

CREATE INDEX voice_calls_by_time ON voice_calls (created_at, uid);
CREATE INDEX voice_calls_by_update ON voice_calls (updated_at, uid);
CREATE INDEX voice_calls_by_staff ON voice_calls (staff_uid, created_at, uid)
    WHERE staff_uid IS NOT NULL;
CREATE INDEX voice_calls_by_client ON voice_calls (client_uid, created_at, uid)
    WHERE client_uid IS NOT NULL;
CREATE INDEX voice_calls_by_from_number ON voice_calls (from_number, created_at, uid)
    WHERE from_number IS NOT NULL;
CREATE INDEX voice_calls_by_to_number ON voice_calls (to_number, created_at, uid)
    WHERE to_number IS NOT NULL;
CREATE INDEX voice_calls_to_handle ON voice_calls (created_at, uid)
    WHERE status = 'missed' AND handled_at IS NULL AND deleted_at IS NULL;

ALTER TABLE voice_call_changes
    ADD CONSTRAINT voice_call_changes_revision_check CHECK (revision > 0),
    ADD CONSTRAINT voice_call_changes_whole_or_blank
        CHECK (num_nulls(created_at, updated_at, status, direction) IN (0, 4));
ALTER TABLE request_records
    ADD CHECK (revision >= 0),
    ADD CHECK (change_count >= 0);

CREATE OR REPLACE FUNCTION commit_batch(
    -- The random stamp of the batch.
    p_stamp bigint,
    -- Calls that were read, and the revision that each was at.
    p_read_uids uuid[],
    p_read_revisions bigint[],
    -- Requests that carry a request_id. change: the place (from 1) of the first
    -- change of the request, 0 for none; revision: that of the state answered
    -- when there is no change; recorded: false for one that is only looked up.
    p_principals text[],
    p_record_ids uuid[],
    p_fingerprints uuid[],
    p_record_uids uuid[],
    p_record_changes integer[],
    p_record_revisions bigint[],
    p_record_counts integer[],
    p_recorded boolean[],
    -- Changes, in order, at most one for each call.
    p_kinds text[],
    p_actors text[],
    p_request_ids uuid[],
    p_transaction_ends boolean[],
    p_old_values text[],
    p_uids uuid[],
    p_durations integer[],
    p_created_ats timestamptz[],
    p_updated_ats timestamptz[],
    p_statuses text[],
    p_directions text[],
    p_staff_uids text[],
    p_client_uids text[],
    p_from_numbers text[],
    p_to_numbers text[],
    p_recording_urls text[],
    p_call_summaries text[],
    p_external_app_urls text[],
    p_handled_by_staff_uids text[],
    p_handled_ats timestamptz[],
    p_deleted_ats timestamptz[],
    -- The head of the log before this batch, and the time of the commit.
    OUT head_revision bigint,
    OUT head_stamp bigint,
    OUT committed_at timestamptz,
    OUT repeated integer[],
    OUT stale uuid[],
    OUT refusal text
)
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(8642101, 1);

    SELECT b.last_revision, b.stamp, b.committed_at
        INTO head_revision, head_stamp, committed_at
        FROM voice_call_batches b ORDER BY b.last_revision DESC LIMIT 1;
    head_revision := coalesce(head_revision, 0);
    head_stamp := coalesce(head_stamp, 0);
    -- The clock may step back; the log's times do not.
    committed_at := greatest(clock_timestamp(), committed_at);

    IF cardinality(p_record_ids) > 0 THEN
        SELECT array_agg(q.place::integer) INTO repeated
            FROM unnest(p_record_ids, p_principals) WITH ORDINALITY AS q (request_id, principal, place)
            WHERE EXISTS (
                SELECT FROM request_records r
                WHERE r.request_id = q.request_id
                    AND r.principal = q.principal
                    AND r.recorded_at > committed_at - interval '24 hours'
                    AND r.recorded_at <= committed_at
            );
    END IF;
    IF cardinality(p_read_uids) > 0 THEN
        SELECT array_agg(q.uid) INTO stale
            FROM unnest(p_read_uids, p_read_revisions) AS q (uid, revision)
            LEFT JOIN voice_calls c ON c.uid = q.uid
            WHERE coalesce(c.revision, 0) <> q.revision
                OR (
                    q.revision = 0
                    AND EXISTS (SELECT FROM purged_calls p WHERE p.uid = q.uid)
                );
    END IF;
    IF repeated IS NOT NULL OR stale IS NOT NULL THEN
        RETURN;
    END IF;

    IF cardinality(p_uids) > 0 THEN
        WITH input AS MATERIALIZED (
            SELECT
                head_revision + i.place AS revision,
                i.kind::voice_call_change_kind AS kind,
                i.actor, i.request_id, i.transaction_end,
                i.old_values::jsonb AS old_values,
                i.uid, i.duration,
                CASE WHEN i.created_at = 'infinity' THEN committed_at ELSE i.created_at END AS created_at,
                CASE WHEN i.updated_at = 'infinity' THEN committed_at ELSE i.updated_at END AS updated_at,
                i.status::voice_call_status AS status,
                i.direction::voice_call_direction AS direction,
                i.staff_uid, i.client_uid, i.from_number, i.to_number,
                i.recording_url, i.call_summary, i.external_app_url, i.handled_by_staff_uid,
                CASE WHEN i.handled_at = 'infinity' THEN committed_at ELSE i.handled_at END AS handled_at,
                CASE WHEN i.deleted_at = 'infinity' THEN committed_at ELSE i.deleted_at END AS deleted_at
            FROM unnest(
                p_kinds, p_actors, p_request_ids, p_transaction_ends, p_old_values,
                p_uids, p_durations, p_created_ats, p_updated_ats, p_statuses, p_directions,
                p_staff_uids, p_client_uids, p_from_numbers, p_to_numbers,
                p_recording_urls, p_call_summaries, p_external_app_urls, p_handled_by_staff_uids,
                p_handled_ats, p_deleted_ats
            ) WITH ORDINALITY AS i (
                kind, actor, request_id, transaction_end, old_values,
                uid, duration, created_at, updated_at, status, direction,
                staff_uid, client_uid, from_number, to_number,
                recording_url, call_summary, external_app_url, handled_by_staff_uid,
                handled_at, deleted_at, place
            )
        ), inserted AS (
            INSERT INTO voice_calls (
                uid, duration, created_at, updated_at, status, direction,
                staff_uid, client_uid, from_number, to_number, recording_url, call_summary,
                external_app_url, handled_by_staff_uid, handled_at, deleted_at, revision
            )
            SELECT
                uid, duration, created_at, updated_at, status, direction,
                staff_uid, client_uid, from_number, to_number, recording_url, call_summary,
                external_app_url, handled_by_staff_uid, handled_at, deleted_at, revision
            FROM input WHERE kind <> 'purged' AND old_values IS NULL
        ), updated AS (
            UPDATE voice_calls c SET
                duration = i.duration,
                created_at = i.created_at,
                updated_at = i.updated_at,
                status = i.status,
                direction = i.direction,
                staff_uid = i.staff_uid,
                client_uid = i.client_uid,
                from_number = i.from_number,
                to_number = i.to_number,
                recording_url = i.recording_url,
                call_summary = i.call_summary,
                external_app_url = i.external_app_url,
                handled_by_staff_uid = i.handled_by_staff_uid,
                handled_at = i.handled_at,
                deleted_at = i.deleted_at,
                revision = i.revision
            FROM input i WHERE c.uid = i.uid AND i.old_values IS NOT NULL
        )
        INSERT INTO voice_call_changes (
            revision, stamp, changed_at, kind, actor, request_id, transaction_end, old_values,
            uid, duration, created_at, updated_at, status, direction,
            staff_uid, client_uid, from_number, to_number, recording_url, call_summary,
            external_app_url, handled_by_staff_uid, handled_at, deleted_at
        )
        SELECT
            revision, p_stamp, committed_at, kind, actor, request_id, transaction_end, old_values,
            uid, duration, created_at, updated_at, status, direction,
            staff_uid, client_uid, from_number, to_number, recording_url, call_summary,
            external_app_url, handled_by_staff_uid, handled_at, deleted_at
        FROM input;

        INSERT INTO voice_call_batches (last_revision, stamp, committed_at)
            VALUES (head_revision + cardinality(p_uids), p_stamp, committed_at);
    END IF;

    IF 'purged' = ANY (p_kinds) THEN
        -- Fingerprints are hashes of what was sent. A nil one matches any request.
        UPDATE request_records r SET fingerprint = '00000000-0000-0000-0000-000000000000'
            FROM unnest(p_uids, p_kinds) AS p (uid, kind)
            JOIN voice_call_changes c ON c.uid = p.uid
            WHERE p.kind = 'purged' AND r.request_id = c.request_id;
        UPDATE voice_call_changes c SET
            old_values = NULL, duration = NULL, created_at = NULL, updated_at = NULL,
            status = NULL, direction = NULL, staff_uid = NULL, client_uid = NULL,
            from_number = NULL, to_number = NULL, recording_url = NULL, call_summary = NULL,
            external_app_url = NULL, handled_by_staff_uid = NULL, handled_at = NULL,
            deleted_at = NULL
            FROM unnest(p_uids, p_kinds) AS p (uid, kind)
            WHERE p.kind = 'purged' AND c.uid = p.uid AND c.kind <> 'purged';
        DELETE FROM voice_calls c USING unnest(p_uids, p_kinds) AS p (uid, kind)
            WHERE p.kind = 'purged' AND c.uid = p.uid;
        INSERT INTO purged_calls (uid, revision)
            SELECT p.uid, head_revision + p.place
            FROM unnest(p_uids, p_kinds) WITH ORDINALITY AS p (uid, kind, place)
            WHERE p.kind = 'purged';
    END IF;

    IF cardinality(p_record_ids) > 0 THEN
        INSERT INTO request_records (
            recorded_at, principal, request_id, fingerprint, uid, revision, change_count
        )
        SELECT
            committed_at, q.principal, q.request_id, q.fingerprint, q.uid,
            CASE WHEN q.change > 0 THEN head_revision + q.change ELSE q.revision END,
            q.change_count
        FROM unnest(
            p_principals, p_record_ids, p_fingerprints, p_record_uids,
            p_record_changes, p_record_revisions, p_record_counts, p_recorded
        ) AS q (
            principal, request_id, fingerprint, uid, change, revision, change_count, recorded
        )
        WHERE q.recorded;
    END IF;
EXCEPTION WHEN OTHERS THEN
    refusal := SQLSTATE;
END;
$$;
