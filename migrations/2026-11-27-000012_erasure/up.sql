-- When the rows that a purge made dead were vacuumed: until then they are still in the
-- tables' files. Purges of before are vacuumed for too, because nobody knows whether they
-- were.
ALTER TABLE purged_calls ADD COLUMN erased_at timestamptz;

CREATE INDEX purged_calls_to_erase ON purged_calls (revision) WHERE erased_at IS NULL;
