-- The registered processes that can run a function, and the fingerprint of its signature there.
SELECT w.id, f.value FROM _workers AS w, json_each(w.functions) AS f WHERE f.key = ?1;
