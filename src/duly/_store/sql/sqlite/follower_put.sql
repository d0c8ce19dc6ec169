-- Who follows, and for how long his word is good.
INSERT INTO _followers (id, address, until) VALUES (?1, ?2, ?3)
ON CONFLICT (id) DO UPDATE SET address = excluded.address, until = excluded.until;
