-- A move: started, settled, postponed, set aside. Conditional on id, state and attempt: what was cancelled, rescued or settled
-- before stays as it is.
UPDATE _scheduled_functions
SET kind = ?4, state = ?5, due = ?6, started_time = ?7, completed_time = ?8, attempts = ?9, worker = ?10, error = ?11,
    pending_reason = ?12, parked = ?13, refused = ?14
WHERE id = ?1 AND state = ?2 AND attempts = ?3;
