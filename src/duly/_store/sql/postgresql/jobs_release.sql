-- Gives back what a worker that stops had reserved and did not run.
UPDATE {schema}.scheduled_functions SET reserved_by = NULL, reserved_until = NULL
WHERE kind IN ('mutation', 'action') AND state = 'pending' AND NOT parked AND due <= $2 AND reserved_by = $1;
