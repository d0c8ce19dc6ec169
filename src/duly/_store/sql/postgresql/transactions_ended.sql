-- Whether these transactions have ended: all of them, or else those that are serializable as duly's are. A backup that takes
-- hours is not waited for.
SELECT NOT EXISTS (
  SELECT 1 FROM pg_locks AS l WHERE l.locktype = 'virtualxid' AND l.virtualtransaction = ANY($1::text[]) AND (
    $2::boolean OR EXISTS (
      SELECT 1 FROM pg_locks AS s WHERE s.virtualtransaction = l.virtualtransaction AND s.mode = 'SIReadLock'
    )
  )
);
