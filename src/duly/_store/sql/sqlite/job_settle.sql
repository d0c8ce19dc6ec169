-- An outcome. Conditional on id, state and attempt: what was cancelled, rescued or settled before stays as it is.
UPDATE _scheduled_functions
SET state = ?4, due = NULL, parked = 0, pending_reason = NULL, completed_time = ?5, error = ?6,
    started_time = coalesce(started_time, ?7), attempts = attempts + ?8
WHERE id = ?1 AND state = ?2 AND attempts = ?3;
