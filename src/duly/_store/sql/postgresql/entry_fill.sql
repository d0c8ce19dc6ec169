-- The same while an index is being filled: whoever wrote the document since it was declared has seen to it already.
INSERT INTO {schema}.index_entries (index_id, key, id) SELECT * FROM unnest($1::integer[], $2::bytea[], $3::text[])
ON CONFLICT DO NOTHING;
