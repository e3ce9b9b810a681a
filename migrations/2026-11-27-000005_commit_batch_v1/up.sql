-- Commits one batch of changes that the service's state machine has computed: calls, change
-- log and idempotency records in one statement, so that a lost connection can leave no half
-- of it behind, and the lock is never held across a round trip. It holds mechanics only; the
-- rules are the service's.
--
-- Under the lock that orders all commits it first checks whether the batch may be committed:
--   repeated: the places (from 1) of the requests that were recorded before
--   stale:    the calls that are no longer at the revision at which they were read, or that
--             were read as absent (revision 0) and exist now, or did until they were purged
-- If there are any it writes nothing and returns them. What the database refuses it returns
-- as refusal, a SQLSTATE, because the driver drops those; then nothing is written either. If
-- there is no partition for the batch, lacks_partition is true: the caller makes one and
-- commits again.
--
-- The log's time follows the database's clock as far as the caller believes that clock, give
-- or take five seconds, and never runs backwards. It is taken under the lock, so no change to
-- come is earlier than the last one.
--
-- In the arrays of times, 'infinity' stands for the time of this commit.
--
-- The arrays are read by subscript: PL/pgSQL holds them unpacked, so a subscript is a
-- look-up, while unnest of several arrays runs a function and fills a table for each. The
-- session's settings, and look-ups that cannot become joins, pin the plans: one that was made
-- while a table was small would be kept, and be wrong, for the life of the connection.
--
-- A change of this function is a new function with the next number in its name, because
-- replicas of the release before go on calling this one.
CREATE FUNCTION commit_batch_v1(
    -- The random stamp of the batch.
    p_stamp bigint,
    -- The time of this database's clock, as far as the caller believes that clock.
    p_now timestamptz,
    -- Requests that were recorded a day before this have expired.
    p_expiry timestamptz,
    -- Calls that were read, and the revision that each was at.
    p_read_uids uuid[],
    p_read_revisions bigint[],
    -- Requests that carry a request_id. change: the place (from 1) of the first change of
    -- the request, 0 for none; revision: that of the state in the response when there is no
    -- change; recorded: false for a request that is only looked up.
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
    -- What the database's clock says.
    OUT clock timestamptz,
    OUT repeated integer[],
    OUT stale uuid[],
    OUT refusal text,
    OUT lacks_partition boolean
)
LANGUAGE plpgsql
AS $$
DECLARE
    refusing_constraint text;
    refusing_table text;
BEGIN
    -- As an expression it costs a tenth of what it does as a statement. Each schema is an
    -- installation of its own, with locks of its own.
    IF pg_advisory_xact_lock(
        CASE current_schema() WHEN 'public' THEN 8642101 ELSE hashtext(current_schema()) END, 1
    ) IS NULL THEN
        RETURN;
    END IF;

    SELECT b.last_revision, b.stamp, greatest(b.committed_at, b.confirmed_at)
        INTO head_revision, head_stamp, committed_at
        FROM voice_call_batches b ORDER BY b.last_revision DESC LIMIT 1;
    head_revision := coalesce(head_revision, 0);
    head_stamp := coalesce(head_stamp, 0);
    -- The clock may step either way, and is then not believed.
    clock := clock_timestamp();
    committed_at := greatest(
        least(clock, p_now + interval '5 seconds'), p_now - interval '5 seconds', committed_at
    );

    IF cardinality(p_record_ids) > 0 THEN
        -- OFFSET 0 keeps the subqueries from becoming joins, in which a table that was small
        -- when this was planned could be read in full.
        SELECT array_agg(i.place) INTO repeated
            FROM generate_series(1, cardinality(p_record_ids)) AS i (place)
            WHERE EXISTS (
                SELECT FROM idempotency_records r
                WHERE r.request_id = p_record_ids[i.place]
                    AND r.principal = p_principals[i.place]
                    AND r.recorded_at > p_expiry - interval '24 hours'
                    -- No record is later than this, so partitions made ahead are skipped.
                    AND r.recorded_at <= committed_at
                OFFSET 0
            );
    END IF;
    IF cardinality(p_read_uids) > 0 THEN
        SELECT array_agg(p_read_uids[i.place]) INTO stale
            FROM generate_series(1, cardinality(p_read_uids)) AS i (place)
            WHERE p_read_revisions[i.place] <> coalesce(
                    (SELECT c.revision FROM voice_calls c WHERE c.uid = p_read_uids[i.place]), 0
                )
                OR (
                    p_read_revisions[i.place] = 0
                    AND EXISTS (
                        SELECT FROM purged_calls p WHERE p.uid = p_read_uids[i.place] OFFSET 0
                    )
                );
    END IF;
    IF repeated IS NOT NULL OR stale IS NOT NULL THEN
        RETURN;
    END IF;

    IF cardinality(p_uids) > 0 THEN
        -- From here on the arrays have the time of this commit.
        p_created_ats := array_replace(p_created_ats, 'infinity', committed_at);
        p_updated_ats := array_replace(p_updated_ats, 'infinity', committed_at);
        p_handled_ats := array_replace(p_handled_ats, 'infinity', committed_at);
        p_deleted_ats := array_replace(p_deleted_ats, 'infinity', committed_at);
        WITH batch AS (
            INSERT INTO voice_call_batches (last_revision, stamp, committed_at)
            VALUES (head_revision + cardinality(p_uids), p_stamp, committed_at)
        ), inserted AS (
            INSERT INTO voice_calls (
                uid, duration, created_at, updated_at, status, direction, staff_uid, client_uid,
                from_number, to_number, recording_url, call_summary, external_app_url,
                handled_by_staff_uid, handled_at, deleted_at, revision
            )
            SELECT
                p_uids[i.place], p_durations[i.place],
                p_created_ats[i.place],
                p_updated_ats[i.place],
                p_statuses[i.place]::voice_call_status, p_directions[i.place]::voice_call_direction,
                p_staff_uids[i.place], p_client_uids[i.place], p_from_numbers[i.place],
                p_to_numbers[i.place], p_recording_urls[i.place], p_call_summaries[i.place],
                p_external_app_urls[i.place], p_handled_by_staff_uids[i.place],
                p_handled_ats[i.place],
                p_deleted_ats[i.place],
                head_revision + i.place
            FROM generate_series(1, cardinality(p_uids)) AS i (place)
            WHERE p_kinds[i.place] <> 'purged' AND p_old_values[i.place] IS NULL
        )
        INSERT INTO voice_call_changes (
            revision, stamp, changed_at, kind, actor, request_id, transaction_end, old_values, uid,
            duration, created_at, updated_at, status, direction, staff_uid, client_uid, from_number,
            to_number, recording_url, call_summary, external_app_url, handled_by_staff_uid,
            handled_at, deleted_at
        )
        SELECT
            head_revision + i.place, p_stamp, committed_at,
            p_kinds[i.place]::voice_call_change_kind, p_actors[i.place], p_request_ids[i.place],
            p_transaction_ends[i.place], p_old_values[i.place]::jsonb, p_uids[i.place],
            p_durations[i.place],
            p_created_ats[i.place],
            p_updated_ats[i.place],
            p_statuses[i.place]::voice_call_status, p_directions[i.place]::voice_call_direction,
            p_staff_uids[i.place], p_client_uids[i.place], p_from_numbers[i.place],
            p_to_numbers[i.place], p_recording_urls[i.place], p_call_summaries[i.place],
            p_external_app_urls[i.place], p_handled_by_staff_uids[i.place],
            p_handled_ats[i.place],
            p_deleted_ats[i.place]
        FROM generate_series(1, cardinality(p_uids)) AS i (place);
    ELSIF cardinality(p_record_ids) = 0 OR true = ANY (p_recorded) THEN
        -- No change to come has an earlier time than this.
        UPDATE voice_call_batches b SET confirmed_at = commit_batch_v1.committed_at
            WHERE b.last_revision = head_revision;
        IF NOT FOUND THEN
            INSERT INTO voice_call_batches (last_revision, stamp, committed_at)
                VALUES (0, 0, committed_at);
        END IF;
    END IF;

    IF array_remove(p_old_values, NULL) <> '{}' THEN
        -- Each of these calls exists, so each is a conflict: an update by the primary key,
        -- without a join.
        INSERT INTO voice_calls (
            uid, duration, created_at, updated_at, status, direction, staff_uid, client_uid,
            from_number, to_number, recording_url, call_summary, external_app_url,
            handled_by_staff_uid, handled_at, deleted_at, revision
        )
        SELECT
            p_uids[i.place], p_durations[i.place],
            p_created_ats[i.place],
            p_updated_ats[i.place],
            p_statuses[i.place]::voice_call_status, p_directions[i.place]::voice_call_direction,
            p_staff_uids[i.place], p_client_uids[i.place], p_from_numbers[i.place],
            p_to_numbers[i.place], p_recording_urls[i.place], p_call_summaries[i.place],
            p_external_app_urls[i.place], p_handled_by_staff_uids[i.place],
            p_handled_ats[i.place],
            p_deleted_ats[i.place],
            head_revision + i.place
        FROM generate_series(1, cardinality(p_uids)) AS i (place)
        WHERE p_old_values[i.place] IS NOT NULL
        ON CONFLICT (uid) DO UPDATE SET
            duration = excluded.duration,
            created_at = excluded.created_at,
            updated_at = excluded.updated_at,
            status = excluded.status,
            direction = excluded.direction,
            staff_uid = excluded.staff_uid,
            client_uid = excluded.client_uid,
            from_number = excluded.from_number,
            to_number = excluded.to_number,
            recording_url = excluded.recording_url,
            call_summary = excluded.call_summary,
            external_app_url = excluded.external_app_url,
            handled_by_staff_uid = excluded.handled_by_staff_uid,
            handled_at = excluded.handled_at,
            deleted_at = excluded.deleted_at,
            revision = excluded.revision;
    END IF;

    IF 'purged' = ANY (p_kinds) THEN
        -- A fingerprint is a hash of what was sent. A nil one matches any request.
        UPDATE idempotency_records r SET fingerprint = '00000000-0000-0000-0000-000000000000'
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
        INSERT INTO idempotency_records (
            recorded_at, principal, request_id, fingerprint, uid, revision, change_count
        )
        SELECT
            committed_at, p_principals[i.place], p_record_ids[i.place], p_fingerprints[i.place],
            p_record_uids[i.place],
            CASE WHEN p_record_changes[i.place] > 0
                THEN head_revision + p_record_changes[i.place]
                ELSE p_record_revisions[i.place] END,
            p_record_counts[i.place]
        FROM generate_series(1, cardinality(p_record_ids)) AS i (place)
        WHERE p_recorded[i.place];
    END IF;

    -- Constraints that are deferred to the commit are checked now, so that they refuse like
    -- all others.
    SET CONSTRAINTS ALL IMMEDIATE;
EXCEPTION WHEN query_canceled OR OTHERS THEN
    GET STACKED DIAGNOSTICS refusing_constraint = CONSTRAINT_NAME, refusing_table = TABLE_NAME;
    refusal := SQLSTATE;
    -- It has the SQLSTATE of a check violation, but no constraint has a name for it, and a
    -- trigger that says the same names no table.
    lacks_partition := refusal = '23514' AND refusing_constraint = ''
        AND refusing_table IN ('voice_call_changes', 'idempotency_records');
END;
$$;
