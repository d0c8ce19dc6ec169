-- A new scheduled function in a transaction that is not duly's, and the word to those who listen, which they get when it
-- commits. Bound by place: the fields of a Job, the channel, the word, and what is written for those who follow. What WITH is to write is written, read or not.
WITH inserted AS (
  INSERT INTO {schema}.scheduled_functions (id, name, kind, state, due, scheduled_time, started_time, completed_time,
    attempts, worker, error, pending_reason, args, parked, refused, trace)
  VALUES ($1::text, $2::text, $3::text, $4::text, $5::float8, $6::float8, $7::float8, $8::float8, $9::integer, $10::text,
    $11::text, $12::text, $13::text, $14::boolean, $15::text, $16::text)
), changed AS (
  INSERT INTO {schema}.changes (time, written) VALUES ($19::float8, $20::text)
)
SELECT pg_notify($17::text, $18::text);
