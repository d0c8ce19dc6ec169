-- The number by which a commit whose answer got lost can be asked for later.
SELECT pg_current_xact_id()::text;
