-- Due work of one kind in start order: (due time, order of scheduling), rule S7. The partial index holds nothing else.
-- SQLite has one writer, so the rows read here can't be taken by another before this transaction ends.
-- Long arguments are fetched when their job's turn comes: a batch of them could fill the memory.
SELECT j.id, j.name, j.kind, j.state, j.due, j.scheduled_time, j.started_time, j.completed_time, j.attempts, j.worker, j.error,
  j.pending_reason, coalesce(j.args, ''), j.parked, j.refused, j.trace
FROM _scheduled_functions AS j
WHERE j.kind = ?1 AND j.state = 'pending' AND j.parked = 0 AND j.due <= ?2
ORDER BY j.due, j.id LIMIT ?3;
