-- What the change feed needs: who it is, how far back it reaches, where it ends,
-- and a log whose old parts can go.

-- One row. feed_id tells this log from any other, so that a resume token of
-- another database is known as such. oldest_revision is the oldest point that
-- one may resume from; it is raised before any entry is dropped.
CREATE TABLE feed (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    feed_id         uuid NOT NULL DEFAULT gen_random_uuid(),
    oldest_revision bigint NOT NULL DEFAULT 0 CHECK (oldest_revision >= 0)
);
INSERT INTO feed DEFAULT VALUES;

-- One row for each commit. Its last row is the counter that the next commit goes
-- on from: insert-only like the log itself, and not partitioned, because a look
-- at the end of a partitioned table locks every partition.
CREATE TABLE voice_call_batches (
    last_revision bigint PRIMARY KEY,
    stamp         bigint NOT NULL,
    committed_at  timestamptz NOT NULL
);
INSERT INTO voice_call_batches (last_revision, stamp, committed_at)
    SELECT max(revision), stamp, max(changed_at) FROM voice_call_changes GROUP BY stamp;

-- The uids of purged calls, which stay taken.
CREATE TABLE purged_calls (
    uid      uuid PRIMARY KEY,
    revision bigint NOT NULL CHECK (revision > 0)
);

-- A purge blanks the state in all entries of the call.
ALTER TABLE voice_call_changes
    ALTER COLUMN created_at DROP NOT NULL,
    ALTER COLUMN updated_at DROP NOT NULL,
    ALTER COLUMN status DROP NOT NULL,
    ALTER COLUMN direction DROP NOT NULL,
    ADD CONSTRAINT voice_call_changes_whole_or_blank
        CHECK (num_nulls(created_at, updated_at, status, direction) IN (0, 4));

-- The one partition so far gets an end; the service makes the next ones ahead,
-- and drops those past the retention. Names say from which revision to below
-- which one a partition reaches.
DO $$
DECLARE
    ends bigint;
    name text;
BEGIN
    SELECT (coalesce(max(revision), 0) / 1000 + 1) * 1000 INTO ends FROM voice_call_changes;
    name := 'voice_call_changes_' || lpad('1', 16, '0') || '_' || lpad(ends::text, 16, '0');
    ALTER TABLE voice_call_changes DETACH PARTITION voice_call_changes_all;
    EXECUTE format('ALTER TABLE voice_call_changes_all RENAME TO %I', name);
    EXECUTE format(
        'ALTER TABLE voice_call_changes ATTACH PARTITION %I FOR VALUES FROM (1) TO (%s)', name, ends
    );
END;
$$;
