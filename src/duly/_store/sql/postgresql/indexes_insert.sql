-- Declares an index. Another process may have been first.
INSERT INTO {schema}.indexes (tag, name, fields) VALUES ($1, $2, $3)
ON CONFLICT (tag, name, fields) DO UPDATE SET fields = excluded.fields RETURNING id;
