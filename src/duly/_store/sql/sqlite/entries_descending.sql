-- A range of an index in reverse order.
SELECT e.key, e.id, d.body
FROM _index_entries AS e CROSS JOIN _documents AS d ON d.id = e.id
WHERE e.index_id = ?1 AND (e.key, e.id) > (?2, ?3) AND (e.key, e.id) < (?4, ?5)
ORDER BY e.key DESC, e.id DESC LIMIT ?6;
