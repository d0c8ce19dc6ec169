-- What this transaction wrote, if anybody follows.
INSERT INTO {schema}.changes (time, written)
SELECT $1::float8, $2::text WHERE EXISTS (SELECT 1 FROM {schema}.followers WHERE until > $1::float8);
