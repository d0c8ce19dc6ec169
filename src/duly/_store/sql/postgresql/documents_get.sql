-- Documents by their ids. Point reads of the primary key.
SELECT id, body FROM {schema}.documents WHERE id = ANY($1::text[]);
