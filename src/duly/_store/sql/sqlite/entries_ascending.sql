-- A range of an index in its order. Bounds are exclusive positions (key, id); CROSS JOIN keeps the index outermost.
SELECT e.key, e.id, d.body
FROM _index_entries AS e CROSS JOIN _documents AS d ON d.id = e.id
WHERE e.index_id = ?1 AND (e.key, e.id) > (?2, ?3) AND (e.key, e.id) < (?4, ?5)
ORDER BY e.key, e.id LIMIT ?6;
