-- When the next job of a kind comes due that no worker is about to run, and when the first reservation of others ends.
-- What this worker reserved in looks before this one, it gave up: that is to be had.
SELECT (
  SELECT due FROM {schema}.scheduled_functions
  WHERE kind = $1 AND state = 'pending' AND NOT parked AND (reserved_until IS NULL OR reserved_until <= $2 OR (reserved_by = $3 AND reserved_until <> $4))
  ORDER BY due LIMIT 1
), (
  SELECT min(reserved_until) FROM (
    SELECT reserved_until, reserved_by FROM {schema}.scheduled_functions
    WHERE kind = $1 AND state = 'pending' AND NOT parked AND due <= $2 ORDER BY due LIMIT 1000
  ) AS overdue WHERE reserved_by <> $3
);
