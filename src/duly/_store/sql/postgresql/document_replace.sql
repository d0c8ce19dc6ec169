-- The documents' new bodies.
UPDATE {schema}.documents AS d SET body = n.body
FROM unnest($1::text[], $2::text[]) AS n (id, body) WHERE d.id = n.id;
