-- What a transaction is told at its start, for itself alone: nothing depends on the session. A sequential scan would lock
-- the whole table against serializable writers. Whoever holds locks and says nothing for so long is taken for gone; and
-- nobody waits for a row for long, and holds up the others of its group. The time is what our own clock follows. And
-- whatever the database's own setting is, a commit is durable when it is answered (rule T2).
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::double precision, set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true),
  set_config('lock_timeout', '5000', true), set_config('idle_in_transaction_session_timeout', $1, true),
  set_config('synchronous_commit',
    CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true);
