-- Finished functions past their retention, oldest first, a small batch at a time; those that others delete are theirs.
WITH pruned AS (
  DELETE FROM {schema}.scheduled_functions WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM {schema}.scheduled_functions
    WHERE completed_time IS NOT NULL AND completed_time < $1
    ORDER BY completed_time LIMIT $2 FOR UPDATE SKIP LOCKED
  )) RETURNING id
)
SELECT id FROM pruned;
