-- A new scheduled function, part of the transaction that schedules it.
INSERT INTO _scheduled_functions (id, name, kind, state, due, scheduled_time, completed_time, args)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8);
