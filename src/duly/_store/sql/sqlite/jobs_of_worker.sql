-- What a worker has in progress.
SELECT j.id, j.name, j.kind, j.state, j.due, j.scheduled_time, j.started_time, j.completed_time, j.attempts, j.worker, j.error,
  j.pending_reason, coalesce(j.args, (SELECT a.args FROM _scheduled_arguments AS a WHERE a.id = j.id)), j.parked, j.refused, j.trace
FROM _scheduled_functions AS j INDEXED BY _scheduled_functions_in_progress
WHERE j.state = 'inProgress' AND j.worker = ?1;
