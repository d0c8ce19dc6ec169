-- Documents of a table by creation time, newest first.
SELECT id, body FROM _documents WHERE id > ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3;
