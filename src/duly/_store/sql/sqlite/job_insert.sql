-- New scheduled functions, part of the transaction that schedules them. Bound by place: the fields of a Job.
INSERT INTO _scheduled_functions (id, name, kind, state, due, scheduled_time, started_time, completed_time, attempts, worker, error,
  pending_reason, args, parked, refused, trace)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16);
