-- Cancels, in a transaction that is not duly's. Conditional, as every move is.
UPDATE {schema}.scheduled_functions AS j
SET state = 'canceled', due = NULL, completed_time = $4::float8, pending_reason = NULL, parked = false, refused = '',
  reserved_by = NULL, reserved_until = NULL
WHERE j.id = $1::text AND j.state = $2::text AND j.attempts = $3::integer
RETURNING j.id;
