-- Wakes the workers and servers that listen.
SELECT pg_notify($1, $2);
