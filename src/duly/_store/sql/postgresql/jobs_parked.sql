-- The same of parked work of one function, that the same signatures refused.
SELECT j.id, j.name, j.kind, j.state, j.due, j.scheduled_time, j.started_time, j.completed_time, j.attempts, j.worker, j.error,
  j.pending_reason, CASE WHEN octet_length(j.args) <= 1024 THEN j.args ELSE '' END, j.parked, j.refused, j.trace, j.ctid::text
FROM {schema}.scheduled_functions AS j
WHERE j.name = $1 AND j.state = 'pending' AND j.parked AND j.refused = $2 AND j.due <= $3
ORDER BY j.due, j.id LIMIT $4;
