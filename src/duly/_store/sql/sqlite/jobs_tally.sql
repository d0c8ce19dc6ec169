-- How many scheduled functions there are in each state, none counted further than ?2, and since when the first of them
-- is due. Pending ones are those that are due at ?1, those for later, and parked ones. Each number is one of entries of
-- an index that holds little else, so that it costs the same however many rows there are.
SELECT 'due', 'mutation', count(*), min(due) FROM (
  SELECT due FROM _scheduled_functions
  WHERE kind = 'mutation' AND state = 'pending' AND parked = 0 AND due <= ?1 ORDER BY due LIMIT ?2
) UNION ALL SELECT 'due', 'action', count(*), min(due) FROM (
  SELECT due FROM _scheduled_functions
  WHERE kind = 'action' AND state = 'pending' AND parked = 0 AND due <= ?1 ORDER BY due LIMIT ?2
) UNION ALL SELECT 'later', 'mutation', count(*), min(due) FROM (
  SELECT due FROM _scheduled_functions
  WHERE kind = 'mutation' AND state = 'pending' AND parked = 0 AND due > ?1 ORDER BY due LIMIT ?2
) UNION ALL SELECT 'later', 'action', count(*), min(due) FROM (
  SELECT due FROM _scheduled_functions
  WHERE kind = 'action' AND state = 'pending' AND parked = 0 AND due > ?1 ORDER BY due LIMIT ?2
) UNION ALL SELECT 'parked', NULL, count(*), NULL FROM (
  SELECT 1 FROM _scheduled_functions WHERE state = 'pending' AND parked = 1 LIMIT ?2
) UNION ALL SELECT 'inProgress', 'action', count(*), NULL FROM (
  SELECT 1 FROM _scheduled_functions WHERE state = 'inProgress' LIMIT ?2
) UNION ALL SELECT 'failed', NULL, count(*), NULL FROM (
  SELECT 1 FROM _scheduled_functions
  WHERE state = 'failed' AND (state = 'inProgress' OR state = 'failed' OR state = 'canceled') LIMIT ?2
) UNION ALL SELECT 'canceled', NULL, count(*), NULL FROM (
  SELECT 1 FROM _scheduled_functions
  WHERE state = 'canceled' AND (state = 'inProgress' OR state = 'failed' OR state = 'canceled') LIMIT ?2
);
