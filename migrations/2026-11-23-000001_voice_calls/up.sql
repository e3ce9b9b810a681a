-- The calls as they are now.
--
-- The enums carry the reference object's own words, so that psql reads like the
-- reference. The CHECKs are the second assertion of rules that the service
-- holds first: a row that breaks one was not written by it.

CREATE TYPE voice_call_status AS ENUM (
    'incoming call', 'answered by staff', 'missed', 'answered by vonage'
);
CREATE TYPE voice_call_direction AS ENUM ('inbound', 'outbound');

CREATE TABLE voice_calls (
    uid                  uuid PRIMARY KEY,
    duration             integer CHECK (duration >= 0),
    created_at           timestamptz NOT NULL CHECK (isfinite(created_at)),
    updated_at           timestamptz NOT NULL CHECK (isfinite(updated_at)),
    status               voice_call_status NOT NULL,
    direction            voice_call_direction NOT NULL,
    staff_uid            text CHECK (char_length(staff_uid) BETWEEN 1 AND 64),
    client_uid           text CHECK (char_length(client_uid) BETWEEN 1 AND 64),
    from_number          text CHECK (char_length(from_number) BETWEEN 1 AND 64),
    to_number            text CHECK (char_length(to_number) BETWEEN 1 AND 64),
    recording_url        text CHECK (octet_length(recording_url) BETWEEN 1 AND 2048),
    call_summary         text CHECK (octet_length(call_summary) BETWEEN 1 AND 65536),
    external_app_url     text CHECK (octet_length(external_app_url) BETWEEN 1 AND 2048),
    handled_by_staff_uid text CHECK (char_length(handled_by_staff_uid) BETWEEN 1 AND 64),
    handled_at           timestamptz CHECK (isfinite(handled_at)),
    deleted_at           timestamptz CHECK (isfinite(deleted_at)),
    revision             bigint NOT NULL CHECK (revision > 0)
);

-- Every index is paid for by every write. These are the questions that must be
-- quick at any size, each in the order in which its answer is paged.
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
-- The worklist: missed, and nobody has called back yet.
CREATE INDEX voice_calls_to_handle ON voice_calls (created_at, uid)
    WHERE status = 'missed' AND handled_at IS NULL AND deleted_at IS NULL;
