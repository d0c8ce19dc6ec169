-- Documents by their ids. Point reads of the primary key. The first is asked for. The others may never be: those that are
-- long would take the time of the function that asks for this one, and much memory.
SELECT id, body FROM {schema}.documents
WHERE id = ANY($1::text[]) AND (id = ($1::text[])[1] OR octet_length(body) <= 16384);
