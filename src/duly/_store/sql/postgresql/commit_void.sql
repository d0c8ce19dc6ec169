-- Waits until the transaction with this token has ended. If it was not committed, it never will be.
INSERT INTO {schema}.commits (token, void) VALUES ($1, true) ON CONFLICT DO NOTHING;
