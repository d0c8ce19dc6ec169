-- The transactions that others have open in this database. By what each has from its first moment: one that has written
-- nothing so far has no number, and yet sees what was there when it began.
SELECT coalesce(array_agg(l.virtualtransaction), '{}')
FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid JOIN pg_database AS d ON d.oid = a.datid
WHERE l.locktype = 'virtualxid' AND d.datname = current_database() AND l.pid <> pg_backend_pid();
