DROP TABLE purged_calls;
DROP FUNCTION text_keys;
DROP TABLE voice_calls;
