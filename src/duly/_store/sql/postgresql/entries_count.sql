-- How many documents a range of an index holds, without reading them.
SELECT count(*) FROM {schema}.index_entries WHERE index_id = $1 AND (key, id) > ($2, $3) AND (key, id) < ($4, $5);
