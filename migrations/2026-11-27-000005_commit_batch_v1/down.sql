DROP FUNCTION commit_batch_v1;
