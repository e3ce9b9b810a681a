-- The types of the columns. The words of the enums are those of the voice call object, so
-- that a row in psql reads like one.
--
-- The rules are domains and not CHECKs of the table: PostgreSQL parses and plans a table's
-- CHECKs anew for every statement, which was a fifth of a small commit, but keeps those of a
-- domain for the session. The service checks the same rules before it writes, so a value
-- that breaks one here was not written by it.

CREATE TYPE voice_call_status AS ENUM (
    'incoming call', 'answered by staff', 'missed', 'answered by vonage'
);
CREATE TYPE voice_call_direction AS ENUM ('inbound', 'outbound');
CREATE TYPE voice_call_change_kind AS ENUM (
    'created', 'updated', 'handled', 'deleted', 'undeleted', 'purged', 'imported'
);

CREATE DOMAIN voice_call_seconds AS integer CHECK (VALUE >= 0);
CREATE DOMAIN voice_call_time AS timestamptz CHECK (isfinite(VALUE));
-- Identifiers of staff and clients, and phone numbers.
CREATE DOMAIN voice_call_name AS text CHECK (char_length(VALUE) BETWEEN 1 AND 64);
CREATE DOMAIN voice_call_url AS text CHECK (octet_length(VALUE) BETWEEN 1 AND 2048);
CREATE DOMAIN voice_call_summary AS text CHECK (octet_length(VALUE) BETWEEN 1 AND 65536);
CREATE DOMAIN voice_call_revision AS bigint CHECK (VALUE > 0);
