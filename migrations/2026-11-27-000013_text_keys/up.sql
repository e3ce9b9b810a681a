-- Indexes by hash are right for as long as the hash of a text stays what it was, which
-- PostgreSQL does not promise across major versions. A stored hash tells: pg_upgrade keeps
-- it like the indexes, and a restored dump computes it anew like the indexes.
CREATE TABLE text_key_sample (
    text     text PRIMARY KEY,
    text_key bigint NOT NULL GENERATED ALWAYS AS (hashtextextended(text, 0)) STORED
);
INSERT INTO text_key_sample (text) VALUES ('The quick brown fox jumps over the lazy dog');
