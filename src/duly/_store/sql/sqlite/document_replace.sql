-- The document's new body.
UPDATE _documents SET body = ?2 WHERE id = ?1;
