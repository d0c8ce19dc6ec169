-- The function has become the other kind since it was scheduled: it queues with those.
UPDATE _scheduled_functions SET kind = ?3, parked = 0, pending_reason = NULL
WHERE id = ?1 AND state = 'pending' AND attempts = ?2;
