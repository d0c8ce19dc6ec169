-- When the next job of a kind comes due. The first entry of the partial index.
SELECT due FROM _scheduled_functions WHERE kind = ?1 AND state = 'pending' AND parked = 0 ORDER BY due LIMIT 1;
