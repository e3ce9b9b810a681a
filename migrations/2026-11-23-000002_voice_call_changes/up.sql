-- The change log: every change of every call, numbered 1, 2, 3 and so on
-- without a gap in commit order. Folding it gives voice_calls.
--
-- An entry holds the state after the change and, in old_values, what the
-- changed fields held before (by field name; times in microseconds since 1970;
-- null where the field was absent), so that the state before can be rebuilt
-- from the entry alone. It is null for a new call.
--
-- All entries of one commit share a random stamp. The log's last entry is the
-- counter that the next commit goes on from, so the log is insert-only and has
-- no hot row: a long transaction elsewhere costs it nothing.

CREATE TYPE voice_call_change_kind AS ENUM (
    'created', 'updated', 'handled', 'deleted', 'undeleted'
);

CREATE TABLE voice_call_changes (
    revision             bigint PRIMARY KEY CHECK (revision > 0),
    stamp                bigint NOT NULL,
    changed_at           timestamptz NOT NULL,
    kind                 voice_call_change_kind NOT NULL,
    actor                text,
    request_id           uuid,
    transaction_end      boolean NOT NULL,
    old_values           jsonb,
    uid                  uuid NOT NULL,
    duration             integer,
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    status               voice_call_status NOT NULL,
    direction            voice_call_direction NOT NULL,
    staff_uid            text,
    client_uid           text,
    from_number          text,
    to_number            text,
    recording_url        text,
    call_summary         text,
    external_app_url     text,
    handled_by_staff_uid text,
    handled_at           timestamptz,
    deleted_at           timestamptz
) PARTITION BY RANGE (revision);

CREATE TABLE voice_call_changes_all PARTITION OF voice_call_changes
    FOR VALUES FROM (MINVALUE) TO (MAXVALUE);

-- One call's history.
CREATE INDEX voice_call_changes_by_call ON voice_call_changes (uid, revision);
