-- A transient fault (rule M3): later again, one attempt more, and the reason where people can see it.
UPDATE _scheduled_functions SET due = ?3, attempts = attempts + 1, pending_reason = ?4
WHERE id = ?1 AND state = 'pending' AND attempts = ?2;
