-- What everybody has seen, or looks at everything again, a batch at a time; what others delete is theirs. Not what is old
-- and was committed only lately: by transactions that had not ended by then.
DELETE FROM {schema}.changes WHERE ctid = ANY(ARRAY(
  SELECT ctid FROM {schema}.changes WHERE time < $1 AND xid < $3::text::xid8 ORDER BY time LIMIT $2 FOR UPDATE SKIP LOCKED
)) RETURNING 1;
