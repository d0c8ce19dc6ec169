-- Lets an index forget a document.
DELETE FROM _index_entries WHERE index_id = ?1 AND key = ?2 AND id = ?3;
