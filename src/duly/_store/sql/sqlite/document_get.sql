-- One document by its id. A point read of the primary key.
SELECT body FROM _documents WHERE id = ?1;
