-- One scheduled function by its id, and where its row is.
SELECT j.id, j.name, j.kind, j.state, j.due, j.scheduled_time, j.started_time, j.completed_time, j.attempts, j.worker, j.error,
  j.pending_reason, j.args, j.parked, j.refused, j.trace, j.ctid::text
FROM {schema}.scheduled_functions AS j WHERE j.id = $1;
