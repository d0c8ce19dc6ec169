-- Documents by their ids.
DELETE FROM {schema}.documents WHERE id = ANY($1::text[]);
