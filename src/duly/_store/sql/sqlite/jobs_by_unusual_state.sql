-- As jobs_by_state for the states that few rows are in. The second condition says nothing new; it is that of the
-- index that holds them.
SELECT j.id, j.name, j.kind, j.state, j.due, j.scheduled_time, j.started_time, j.completed_time, j.attempts, j.worker, j.error,
  j.pending_reason, coalesce(j.args, (SELECT a.args FROM _scheduled_arguments AS a WHERE a.id = j.id)), j.parked, j.refused, j.trace
FROM _scheduled_functions AS j WHERE j.state = ?1 AND (j.state = 'inProgress' OR j.state = 'failed' OR j.state = 'canceled') AND j.id < ?2 ORDER BY j.id DESC LIMIT ?3;
