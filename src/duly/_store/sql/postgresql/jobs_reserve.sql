-- Due work of one kind in start order, (due time, order of scheduling), rule S7, that no other worker is about to run;
-- reserved for this one. A transaction of its own, before the one that runs it, and not serializable: so workers pass
-- each other by, and later conflict on nothing but what they really share. Long arguments are fetched when their job's
-- turn comes: a batch of them could fill the memory.
-- What this worker reserved before, and not in this look nor in one that is being committed, it gave up: it may have it
-- again.
UPDATE {schema}.scheduled_functions AS j SET reserved_by = $4, reserved_until = $5
FROM (
  SELECT c.ctid AS place FROM {schema}.scheduled_functions AS c
  WHERE c.kind = $1 AND c.state = 'pending' AND NOT c.parked AND c.due <= $2
    AND (c.reserved_until IS NULL OR c.reserved_until <= $2 OR (c.reserved_by = $4 AND c.reserved_until NOT IN ($5, $6)))
  ORDER BY c.due, c.id LIMIT $3
  FOR NO KEY UPDATE SKIP LOCKED
) AS found
WHERE j.ctid = found.place
RETURNING j.id, j.name, j.kind, j.state, j.due, j.scheduled_time, j.started_time, j.completed_time, j.attempts, j.worker, j.error,
  j.pending_reason, CASE WHEN octet_length(j.args) <= 1024 THEN j.args ELSE '' END, j.parked, j.refused, j.trace, j.ctid::text;
