-- Lets indexes forget documents.
DELETE FROM {schema}.index_entries AS e USING unnest($1::integer[], $2::bytea[], $3::text[]) AS o (index_id, key, id)
WHERE e.index_id = o.index_id AND e.key = o.key AND e.id = o.id;
