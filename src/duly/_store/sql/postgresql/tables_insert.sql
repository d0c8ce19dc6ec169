-- Remembers tables' names. Another process may have been first.
INSERT INTO {schema}.tables (tag, name) SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING;
