-- The same for rows that this transaction has moved before, and so put elsewhere.
UPDATE {schema}.scheduled_functions AS j
SET kind = n.kind, state = n.state, due = n.due, started_time = n.started_time, completed_time = n.completed_time,
  attempts = n.attempts, worker = n.worker, error = n.error, pending_reason = n.pending_reason, parked = n.parked, refused = n.refused,
  reserved_by = NULL, reserved_until = NULL
FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::float8[], $7::float8[], $8::float8[],
  $9::integer[], $10::text[], $11::text[], $12::text[], $13::boolean[], $14::text[])
  AS n (id, before, attempt, kind, state, due, started_time, completed_time, attempts, worker, error, pending_reason,
  parked, refused)
WHERE j.id = n.id AND j.state = n.before AND j.attempts = n.attempt;
