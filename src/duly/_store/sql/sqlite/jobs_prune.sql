-- Finished functions past their retention, oldest first, a small batch at a time.
DELETE FROM _scheduled_functions WHERE id IN (
  SELECT id FROM _scheduled_functions WHERE completed_time < ?1 ORDER BY completed_time LIMIT ?2
) RETURNING id, args IS NULL;
