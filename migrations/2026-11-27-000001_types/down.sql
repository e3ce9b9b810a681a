DROP DOMAIN voice_call_seconds, voice_call_time, voice_call_name, voice_call_url,
    voice_call_summary, voice_call_revision;
DROP TYPE voice_call_status, voice_call_direction, voice_call_change_kind;
