DROP TABLE feed;
DROP TABLE voice_call_batches;
DROP TABLE voice_call_changes;
