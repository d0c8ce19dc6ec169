-- What a transaction leaves for whoever asks whether it was committed.
INSERT INTO {schema}.commits (token, void) VALUES ($1, false);
