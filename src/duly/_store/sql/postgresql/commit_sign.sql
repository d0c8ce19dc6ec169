-- What a transaction leaves for whoever asks whether it was committed; and what it wrote, if anybody follows, or may do so
-- unseen by this transaction: then this adds a row.
WITH signed AS (INSERT INTO {schema}.commits (token, void) VALUES ($1, false))
INSERT INTO {schema}.changes (time, written) SELECT $2::float8, $3::text
WHERE $3 IS NOT NULL AND ($4::boolean OR EXISTS (SELECT 1 FROM {schema}.followers WHERE until > $2::float8));
