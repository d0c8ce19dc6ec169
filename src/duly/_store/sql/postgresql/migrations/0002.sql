-- Live queries, and clients that are far away. Only adds: workers of the release before go on.

-- What each commit wrote, as long as somebody follows. `xid` is the transaction that wrote it: whether it is visible in a
-- snapshot, and was not in an earlier one, tells what is new, whatever the order of the commits was.
CREATE TABLE {schema}.changes (
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  time double precision NOT NULL,
  written text NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX changes_xid ON {schema}.changes (xid);
CREATE INDEX changes_time ON {schema}.changes (time);

-- Processes with live queries, and for how long their word is good.
CREATE TABLE {schema}.followers (
  id text COLLATE "C" PRIMARY KEY,
  until double precision NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0.0);

-- Mutations of clients that took effect: a client that did not hear the answer asks again, and is told, not obeyed.
CREATE TABLE {schema}.client_requests (
  session text COLLATE "C" NOT NULL,
  request bigint NOT NULL,
  time double precision NOT NULL,
  answer text NOT NULL,
  PRIMARY KEY (session, request)
);
CREATE INDEX client_requests_time ON {schema}.client_requests (time);

-- Keys of administrators, as SHA-256 hashes.
CREATE TABLE {schema}.admin_keys (
  hash text COLLATE "C" PRIMARY KEY,
  label text NOT NULL,
  time double precision NOT NULL
);

-- The span of the call that scheduled a function, as a W3C traceparent, where calls are traced.
ALTER TABLE {schema}.scheduled_functions ADD COLUMN trace text;
