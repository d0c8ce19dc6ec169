-- A new key of an administrator.
INSERT INTO {schema}.admin_keys (hash, label, time) VALUES ($1, $2, $3);
