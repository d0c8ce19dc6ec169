-- One scheduled function, as it is and stays until the transaction ends that is about to cancel it: a worker that is
-- running it has the lock as well, so its commit is waited for. Without the arguments.
SELECT j.id, j.name, j.kind, j.state, j.due, j.scheduled_time, j.started_time, j.completed_time, j.attempts, j.worker, j.error,
  j.pending_reason, '', j.parked, j.refused, j.trace
FROM {schema}.scheduled_functions AS j WHERE j.id = $1::text FOR NO KEY UPDATE;
