-- Lets an index find a document.
INSERT INTO _index_entries (index_id, key, id) VALUES (?1, ?2, ?3);
