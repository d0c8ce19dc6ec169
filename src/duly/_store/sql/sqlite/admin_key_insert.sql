-- A new key of an administrator.
INSERT INTO _admin_keys (hash, label, time) VALUES (?1, ?2, ?3);
