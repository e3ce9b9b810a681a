DROP TABLE purged_calls;
DROP TABLE text_key_sample;
DROP FUNCTION text_keys;
DROP TABLE voice_calls;
