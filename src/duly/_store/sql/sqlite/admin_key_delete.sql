-- A key that is good no more.
DELETE FROM _admin_keys WHERE hash = ?1 RETURNING 1;
