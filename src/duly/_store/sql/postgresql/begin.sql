-- What a transaction is told at its start, for itself alone: nothing depends on the session. A sequential scan would lock
-- the whole table against serializable writers. Whoever holds locks and says nothing for so long is taken for gone; and
-- nobody waits for a row for long, and holds up the others of its group. The time is what our own clock follows. And
-- whatever the database's own setting is, a commit is durable when it is answered (rule T2).
-- The version tells of each other the sets of indexes that are kept up. Documents may have been written with those of one
-- that is taken for granted: if it is not this one, the whole transaction fails, as in expecting.sql.
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::double precision,
  CASE WHEN $2::bigint IS NULL OR version = $2 THEN version ELSE ('catalog touched ' || 0 * version || ' of 1 rows')::bigint END,
  set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true),
  set_config('lock_timeout', '5000', true), set_config('idle_in_transaction_session_timeout', $1, true),
  set_config('synchronous_commit',
    CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true)
FROM {schema}.catalog;
