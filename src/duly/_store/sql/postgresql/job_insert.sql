-- New scheduled functions, part of the transaction that schedules them. Bound by place: the fields of a Job.
INSERT INTO {schema}.scheduled_functions (id, name, kind, state, due, scheduled_time, started_time, completed_time,
  attempts, worker, error, pending_reason, args, parked, refused, trace)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::float8[], $6::float8[], $7::float8[],
  $8::float8[], $9::integer[], $10::text[], $11::text[], $12::text[], $13::text[], $14::boolean[], $15::text[],
  $16::text[]);
