-- Documents by their ids, with where their rows are and which transactions wrote them: read aside, to be checked later.
-- The first is asked for; the others are only expected to be, and not worth it where they are long: see documents_get.
SELECT id, body, ctid::text, xmin::text FROM {schema}.documents
WHERE id = ANY($1::text[]) AND (id = ($1::text[])[1] OR octet_length(body) <= 16384);
