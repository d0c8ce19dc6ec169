-- The snapshot that this transaction sees, as others can compare it.
SELECT pg_current_snapshot()::text;
