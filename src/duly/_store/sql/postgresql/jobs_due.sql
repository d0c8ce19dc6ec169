-- Due work of one kind in start order, as a transaction sees it that does not mean to run it.
SELECT j.id, j.name, j.kind, j.state, j.due, j.scheduled_time, j.started_time, j.completed_time, j.attempts, j.worker, j.error,
  j.pending_reason, CASE WHEN octet_length(j.args) <= 1024 THEN j.args ELSE '' END, j.parked, j.refused, j.trace, j.ctid::text
FROM {schema}.scheduled_functions AS j
WHERE j.kind = $1 AND j.state = 'pending' AND NOT j.parked AND j.due <= $2
ORDER BY j.due, j.id LIMIT $3;
