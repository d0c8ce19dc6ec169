-- Cancels, in a transaction that is not duly's. Conditional, as every move is.
WITH canceled AS (
  UPDATE {schema}.scheduled_functions AS j
SET state = 'canceled', due = NULL, completed_time = $4::float8, pending_reason = NULL, parked = false, refused = '',
  reserved_by = NULL, reserved_until = NULL
WHERE j.id = $1::text AND j.state = $2::text AND j.attempts = $3::integer
RETURNING j.id
), changed AS (
  INSERT INTO {schema}.changes (time, written) SELECT $4::float8, $5::text FROM canceled
), told AS (
  SELECT pg_notify($6::text, 'c') FROM canceled
)
SELECT canceled.id FROM canceled, told;
