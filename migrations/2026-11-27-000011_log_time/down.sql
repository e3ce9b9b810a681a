-- The function without a version is still there.

DROP FUNCTION commit_batch_v2;
DELETE FROM voice_call_batches WHERE last_revision = 0;
ALTER TABLE voice_call_batches DROP COLUMN confirmed_at;

DO $$
DECLARE
    slot regclass;
BEGIN
    FOR slot IN
        SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'request_records'::regclass
    LOOP
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', slot);
    END LOOP;
END;
$$;
ALTER TABLE request_records REPLICA IDENTITY DEFAULT;
