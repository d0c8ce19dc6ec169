-- How many documents of a table there are between two creation times.
SELECT count(*) FROM {schema}.documents WHERE id > $1 AND id < $2;
