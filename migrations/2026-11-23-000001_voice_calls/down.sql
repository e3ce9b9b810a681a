DROP TABLE voice_calls;
DROP TYPE voice_call_direction;
DROP TYPE voice_call_status;
