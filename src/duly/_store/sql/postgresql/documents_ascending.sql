-- Documents of a table by creation time. Both bounds are exclusive strings; ids sort by time.
SELECT id, body FROM {schema}.documents WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3;
