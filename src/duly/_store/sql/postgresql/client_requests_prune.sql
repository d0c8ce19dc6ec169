-- Answers that no client asks for any more, a batch at a time; what others delete is theirs.
DELETE FROM {schema}.client_requests WHERE ctid = ANY(ARRAY(
  SELECT ctid FROM {schema}.client_requests WHERE time < $1 ORDER BY time LIMIT $2 FOR UPDATE SKIP LOCKED
)) RETURNING 1;
