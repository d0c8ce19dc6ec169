-- Lets indexes find documents.
INSERT INTO {schema}.index_entries (index_id, key, id) SELECT * FROM unnest($1::integer[], $2::bytea[], $3::text[]);
