-- One document by its id.
DELETE FROM _documents WHERE id = ?1;
