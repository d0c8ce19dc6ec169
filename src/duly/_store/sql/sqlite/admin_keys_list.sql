-- The keys of administrators, oldest first.
SELECT hash, label, time FROM _admin_keys ORDER BY time, hash;
