-- Scheduled functions of one of the usual states, pending and success, last scheduled first: most rows are.
SELECT j.id, j.name, j.kind, j.state, j.due, j.scheduled_time, j.started_time, j.completed_time, j.attempts, j.worker, j.error,
  j.pending_reason, j.args, j.parked, j.refused, j.trace
FROM {schema}.scheduled_functions AS j WHERE j.state = $1 AND j.id < $2 ORDER BY j.id DESC LIMIT $3;
