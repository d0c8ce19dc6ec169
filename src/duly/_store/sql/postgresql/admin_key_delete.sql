-- A key that is good no more.
DELETE FROM {schema}.admin_keys WHERE hash = $1 RETURNING 1;
