-- What a worker has in progress.
SELECT j.id, j.name, j.kind, j.state, j.due, j.scheduled_time, j.started_time, j.completed_time, j.attempts, j.worker, j.error,
  j.pending_reason, j.args, j.parked, j.refused, j.trace, j.ctid::text
FROM {schema}.scheduled_functions AS j WHERE j.state = 'inProgress' AND j.worker = $1;
