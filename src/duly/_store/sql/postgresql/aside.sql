-- What a short transaction beside the others is told: it holds no promise, so it need not wait for the disk.
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('jit', 'off', true),
  set_config('synchronous_commit', 'off', true);
