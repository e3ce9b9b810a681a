-- Gathers the log into one partition again. Entries that a purge has blanked
-- have no place in the earlier schema, so this fails when there are any.
CREATE TABLE voice_call_changes_all (LIKE voice_call_changes INCLUDING ALL);
INSERT INTO voice_call_changes_all SELECT * FROM voice_call_changes;
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN
        SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'voice_call_changes'::regclass
    LOOP
        EXECUTE format('DROP TABLE %s', part);
    END LOOP;
END;
$$;
ALTER TABLE voice_call_changes ATTACH PARTITION voice_call_changes_all
    FOR VALUES FROM (MINVALUE) TO (MAXVALUE);
ALTER TABLE voice_call_changes
    DROP CONSTRAINT voice_call_changes_whole_or_blank,
    ALTER COLUMN created_at SET NOT NULL,
    ALTER COLUMN updated_at SET NOT NULL,
    ALTER COLUMN status SET NOT NULL,
    ALTER COLUMN direction SET NOT NULL;
DROP TABLE purged_calls;
DROP TABLE voice_call_batches;
DROP TABLE feed;
