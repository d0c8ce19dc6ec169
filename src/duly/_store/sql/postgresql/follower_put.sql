-- Who follows, and for how long his word is good. Those who are long gone go.
WITH gone AS (DELETE FROM {schema}.followers WHERE until < $3 - 600000 AND id <> $1)
INSERT INTO {schema}.followers (id, until) VALUES ($1, $2)
ON CONFLICT (id) DO UPDATE SET until = excluded.until;
