-- An action begins (rule A1). Conditional on id, state and attempt: whoever comes second changes nothing.
UPDATE _scheduled_functions
SET state = 'inProgress', due = NULL, parked = 0, pending_reason = NULL, started_time = ?3, worker = ?4, attempts = attempts + 1
WHERE id = ?1 AND state = 'pending' AND attempts = ?2;
