-- Parked work of one function that the same signatures refused, up to a due time, in start order. Usually there is none.
-- Long arguments are fetched when their job's turn comes: a batch of them could fill the memory.
SELECT j.id, j.name, j.kind, j.state, j.due, j.scheduled_time, j.started_time, j.completed_time, j.attempts, j.worker, j.error,
  j.pending_reason, coalesce(j.args, ''), j.parked, j.refused, j.trace
FROM _scheduled_functions AS j
WHERE j.state = 'pending' AND j.parked = 1 AND j.name = ?1 AND j.refused = ?2 AND j.due <= ?3
ORDER BY j.due, j.id LIMIT ?4;
