-- The calls as they are now.
CREATE TABLE voice_calls (
    uid                  uuid PRIMARY KEY,
    duration             voice_call_seconds,
    created_at           voice_call_time NOT NULL,
    updated_at           voice_call_time NOT NULL,
    status               voice_call_status NOT NULL,
    direction            voice_call_direction NOT NULL,
    staff_uid            voice_call_name,
    client_uid           voice_call_name,
    from_number          voice_call_name,
    to_number            voice_call_name,
    recording_url        voice_call_url,
    call_summary         voice_call_summary,
    external_app_url     voice_call_url,
    handled_by_staff_uid voice_call_name,
    handled_at           voice_call_time,
    deleted_at           voice_call_time,
    revision             voice_call_revision NOT NULL
);

-- Every create pays for every index, and so does every update: updated_at is indexed, so no
-- update is heap-only. These are the questions that must be fast at any size, each in the
-- order of its pages. The price is PostgreSQL's CPU time for a row in a batch of 256 creates
-- into 500,000 calls, and the bytes that an entry takes; the row itself takes 1.1 µs without
-- indexes, and the primary key 3.8 µs and 31 bytes.

-- Lists without a filter, or by time. 0.6 µs, 40 bytes: new entries go to the end.
CREATE INDEX voice_calls_by_time ON voice_calls (created_at, uid);

-- Lists in the order of updates. 0.6 µs, 40 bytes: new entries go to the end, also those of
-- updates.
CREATE INDEX voice_calls_by_update ON voice_calls (updated_at, uid);

-- Lists of one member of staff (who answered or who handled), one client, one number. Each entry
-- goes to another place: by staff, client and the two numbers 4.1, 3.9, 3.7 and 3.8 µs, 31 bytes;
-- by handler 32 bytes, for handled calls only. They are of hashes, which compare as numbers: by the
-- text and the uid, one takes 5.0 µs and 59 bytes. A look-up compares the text as well, and
-- calls of the very same time are ordered by sorting.
CREATE INDEX voice_calls_by_staff ON voice_calls (hashtextextended(staff_uid, 0), created_at)
    WHERE staff_uid IS NOT NULL;
CREATE INDEX voice_calls_by_handler
    ON voice_calls (hashtextextended(handled_by_staff_uid, 0), created_at)
    WHERE handled_by_staff_uid IS NOT NULL;
CREATE INDEX voice_calls_by_client ON voice_calls (hashtextextended(client_uid, 0), created_at)
    WHERE client_uid IS NOT NULL;
CREATE INDEX voice_calls_by_from_number
    ON voice_calls (hashtextextended(from_number, 0), created_at)
    WHERE from_number IS NOT NULL;
CREATE INDEX voice_calls_by_to_number
    ON voice_calls (hashtextextended(to_number, 0), created_at)
    WHERE to_number IS NOT NULL;

-- The worklist: missed calls that nobody has handled. 0.2 µs and 10 bytes, when one call in
-- four is missed.
CREATE INDEX voice_calls_to_handle ON voice_calls (created_at, uid)
    WHERE status = 'missed' AND handled_at IS NULL AND deleted_at IS NULL;

-- What a member of staff may see besides their own calls: those that nobody has answered or
-- handled yet. 41 bytes for each of these, at the end like the index by time.
CREATE INDEX voice_calls_unassigned ON voice_calls (created_at, uid)
    WHERE staff_uid IS NULL AND handled_by_staff_uid IS NULL AND handled_at IS NULL;

-- The hashes of several texts, for a look-up of any of them.
CREATE FUNCTION text_keys(texts text[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT array_agg(hashtextextended(text, 0)) FROM unnest(texts) AS t (text) $$;

-- These hashes are right for as long as the hash of a text stays what it was, which PostgreSQL
-- does not promise across major versions. A stored one tells: pg_upgrade keeps it like the
-- indexes, and a restored dump computes it anew like the indexes.
CREATE TABLE text_key_sample (
    text     text PRIMARY KEY,
    text_key bigint NOT NULL GENERATED ALWAYS AS (hashtextextended(text, 0)) STORED
);
INSERT INTO text_key_sample (text) VALUES ('The quick brown fox jumps over the lazy dog');

-- The uids of purged calls, which stay reserved.
CREATE TABLE purged_calls (
    uid       uuid PRIMARY KEY,
    revision  bigint NOT NULL CHECK (revision > 0),
    -- When the rows that the purge made dead were vacuumed: until then they are still in the
    -- tables' files.
    erased_at timestamptz
);

CREATE INDEX purged_calls_to_erase ON purged_calls (revision) WHERE erased_at IS NULL;
