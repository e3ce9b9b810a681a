DROP TABLE text_key_sample;
