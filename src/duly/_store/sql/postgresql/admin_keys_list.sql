-- The keys of administrators, oldest first.
SELECT hash, label, time FROM {schema}.admin_keys ORDER BY time, hash;
