-- What was answered to each request that carried a request_id, kept for 24
-- hours, so that a repeat is answered and not applied again. A record holds no
-- answer, only where the change log has it: change_count changes from revision
-- on. A request that changed nothing has change_count 0 and the revision of the
-- state that it was answered with, or 0 when it was answered with no call.
--
-- Partitioned by time, so that old records go by dropping a table. The index is
-- on the request_id alone: a UUID that two principals share is a rarity that
-- the look-up filters out.

CREATE TABLE request_records (
    recorded_at  timestamptz NOT NULL,
    principal    text NOT NULL,
    request_id   uuid NOT NULL,
    fingerprint  uuid NOT NULL,
    uid          uuid NOT NULL,
    revision     bigint NOT NULL CHECK (revision >= 0),
    change_count integer NOT NULL CHECK (change_count >= 0)
) PARTITION BY RANGE (recorded_at);

CREATE INDEX request_records_by_id ON request_records (request_id);
