-- Sets aside a job whose function this worker does not have, out of the way of the due look-up.
UPDATE _scheduled_functions SET parked = 1, pending_reason = ?3
WHERE id = ?1 AND state = 'pending' AND attempts = ?2;
