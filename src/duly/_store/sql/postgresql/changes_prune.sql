-- What everybody has seen, or looks at everything again, a batch at a time; what others delete is theirs.
DELETE FROM {schema}.changes WHERE ctid = ANY(ARRAY(
  SELECT ctid FROM {schema}.changes WHERE time < $1 ORDER BY time LIMIT $2 FOR UPDATE SKIP LOCKED
)) RETURNING 1;
