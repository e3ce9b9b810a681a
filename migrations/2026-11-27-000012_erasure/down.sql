DROP INDEX purged_calls_to_erase;
ALTER TABLE purged_calls DROP COLUMN erased_at;
