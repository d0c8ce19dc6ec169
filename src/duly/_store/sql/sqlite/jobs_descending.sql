-- Scheduled functions, last scheduled first.
SELECT j.id, j.name, j.kind, j.state, j.due, j.scheduled_time, j.started_time, j.completed_time, j.attempts, j.worker, j.error,
  j.pending_reason, coalesce(j.args, (SELECT a.args FROM _scheduled_arguments AS a WHERE a.id = j.id)), j.parked, j.refused, j.trace
FROM _scheduled_functions AS j WHERE j.id > ?1 AND j.id < ?2 ORDER BY j.id DESC LIMIT ?3;
