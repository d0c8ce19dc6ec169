-- A process that runs scheduled functions. Its id is random and never used again.
INSERT INTO {schema}.workers (id, expires, started_time, functions) VALUES ($1, $2, $3, $4)
ON CONFLICT (id) DO UPDATE SET expires = excluded.expires;
