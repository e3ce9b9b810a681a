-- Imports that have taken place cannot be told without the word for them: their
-- entries would have to go, and revisions would have a gap. So this fails when
-- there are any.
ALTER TYPE voice_call_change_kind RENAME TO voice_call_change_kind_with_imported;
CREATE TYPE voice_call_change_kind AS ENUM (
    'created', 'updated', 'handled', 'deleted', 'undeleted', 'purged'
);
ALTER TABLE voice_call_changes
    ALTER COLUMN kind TYPE voice_call_change_kind USING kind::text::voice_call_change_kind;
DROP TYPE voice_call_change_kind_with_imported;
