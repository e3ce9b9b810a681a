DROP TABLE voice_call_changes;
DROP TYPE voice_call_change_kind;
