-- What clients are going to be answered, in the transaction that does what they asked for.
INSERT INTO {schema}.client_requests (session, request, time, answer)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::float8[], $4::text[]);
