-- A range of an index in its order. Bounds are exclusive positions (key, id).
SELECT e.key, e.id, d.body
FROM (
  SELECT key, id FROM {schema}.index_entries
  WHERE index_id = $1 AND (key, id) > ($2, $3) AND (key, id) < ($4, $5)
  ORDER BY key, id LIMIT $6
) AS e JOIN {schema}.documents AS d ON d.id = e.id
ORDER BY e.key, e.id;
