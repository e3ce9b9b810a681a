-- One record for each request that carried a request_id, kept for 24 hours, so that a repeat
-- gets the first response and is not applied again. A record holds no response, but says
-- where the change log has it: change_count changes from revision on. For a request that
-- changed nothing, change_count is 0 and revision is that of the state in the response, or 0
-- if the response had no call.
--
-- The service makes a partition for every six hours ahead of time, and drops the old ones.
CREATE TABLE idempotency_records (
    recorded_at  timestamptz NOT NULL,
    principal    text NOT NULL,
    request_id   uuid NOT NULL,
    -- A hash of the request. A purge sets it to nil, which matches any request.
    fingerprint  uuid NOT NULL,
    uid          uuid NOT NULL,
    revision     bigint NOT NULL,
    change_count integer NOT NULL
) PARTITION BY RANGE (recorded_at);

-- Finds a repeat. It is on the request_id alone: that two principals use the same UUID is
-- rare, and the look-up compares the principal. 3.8 µs for a row and 31 bytes, taken as for
-- voice_calls.
CREATE INDEX idempotency_records_by_id ON idempotency_records (request_id);

-- The table has no key, and without one or this, PostgreSQL refuses purges as soon as there
-- is a publication of all tables. The partitions get it when they are made.
ALTER TABLE idempotency_records REPLICA IDENTITY FULL;
