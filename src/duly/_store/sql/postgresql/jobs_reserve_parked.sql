-- The same of work that others could not run, of one function that this worker has. Usually there is none.
-- What this worker reserved before, and not in this look nor in one that is being committed, it gave up: it may have it
-- again.
UPDATE {schema}.scheduled_functions AS j SET reserved_by = $5, reserved_until = $6
FROM (
  SELECT c.ctid AS place FROM {schema}.scheduled_functions AS c
  WHERE c.name = $1 AND c.state = 'pending' AND c.parked AND c.refused = $2 AND c.due <= $3
    AND (c.reserved_until IS NULL OR c.reserved_until <= $3 OR (c.reserved_by = $5 AND c.reserved_until NOT IN ($6, $7)))
  ORDER BY c.due, c.id LIMIT $4
  FOR NO KEY UPDATE SKIP LOCKED
) AS found
WHERE j.ctid = found.place
RETURNING j.id, j.name, j.kind, j.state, j.due, j.scheduled_time, j.started_time, j.completed_time, j.attempts, j.worker, j.error,
  j.pending_reason, CASE WHEN octet_length(j.args) <= 1024 THEN j.args ELSE '' END, j.parked, j.refused, j.trace, j.ctid::text;
