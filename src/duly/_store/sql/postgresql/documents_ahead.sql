-- Documents by their ids, with where their rows are and which transactions wrote them: read aside, to be checked later.
SELECT id, body, ctid::text, xmin::text FROM {schema}.documents WHERE id = ANY($1::text[]);
