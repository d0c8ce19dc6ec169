-- What a client is going to be answered, in the transaction that does what it asked for.
INSERT INTO _client_requests (session, request, time, answer) VALUES (?1, ?2, ?3, ?4);
