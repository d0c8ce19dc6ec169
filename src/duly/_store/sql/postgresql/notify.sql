-- Wakes the workers and servers that listen. It holds no promise, so it need not wait for the disk.
SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2);
