-- What a client was answered.
SELECT answer FROM _client_requests WHERE session = ?1 AND request = ?2;
