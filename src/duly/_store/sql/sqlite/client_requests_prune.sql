-- Answers that no client asks for any more, a batch at a time.
DELETE FROM _client_requests WHERE (session, request) IN (
  SELECT session, request FROM _client_requests WHERE time < ?1 ORDER BY time LIMIT ?2
) RETURNING 1;
