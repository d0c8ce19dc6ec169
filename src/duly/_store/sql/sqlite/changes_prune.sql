-- What everybody has seen, or looks at everything again, a batch at a time.
DELETE FROM _changes WHERE n IN (SELECT n FROM _changes WHERE time < ?1 ORDER BY time LIMIT ?2) RETURNING 1;
