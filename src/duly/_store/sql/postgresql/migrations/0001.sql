-- Schema version 1. {schema} is the PostgreSQL schema that duly has to itself, `duly` as a rule.
-- Every text that is compared or ordered is COLLATE "C": byte by byte, as everywhere in duly, whatever the database's
-- own collation is, and untouched by an upgrade of the operating system's.

-- Names of tables and the tag that begins the ids of their documents.
CREATE TABLE {schema}.tables (
  tag text COLLATE "C" PRIMARY KEY,
  name text COLLATE "C" NOT NULL UNIQUE
);

-- All documents of all tables, by id: by table, then by creation. The body is JSON text without _id and _creationTime.
-- Text, not jsonb, which knows neither NaN nor the difference of 1 and 1.0. Room for updates that touch no index.
CREATE TABLE {schema}.documents (
  id text COLLATE "C" PRIMARY KEY,
  body text NOT NULL
) WITH (fillfactor = 85);

-- The indexes that every process keeps up, whether its own code declares them or not. ready: filled from the documents
-- that were there before it. catalog.version grows with every new one: each writing transaction reads it.
CREATE TABLE {schema}.indexes (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tag text COLLATE "C" NOT NULL,
  name text NOT NULL,
  fields text NOT NULL,
  ready boolean NOT NULL DEFAULT false,
  UNIQUE (tag, name, fields)
);
CREATE TABLE {schema}.catalog (
  version bigint NOT NULL
);
INSERT INTO {schema}.catalog (version) VALUES (0);

-- Index entries: the key orders as the fields' values do, and the id, which begins with the time, breaks the tie.
CREATE TABLE {schema}.index_entries (
  index_id integer NOT NULL,
  key bytea NOT NULL,
  id text COLLATE "C" NOT NULL,
  PRIMARY KEY (index_id, key, id)
);

-- Scheduled functions. Times are milliseconds since the Unix epoch. Ids are in the order of scheduling.
-- due is NULL once the function has started or finished. parked: no code that looked at it could run it; refused: which
-- did have the function, and could not take its arguments. reserved_*: a worker is about to run it, and others look for
-- other work until then. A hint: what decides is the condition on state and attempts with which it is written.
-- Half of a page is for new versions of its rows; vacuum comes often, and does not dawdle.
CREATE TABLE {schema}.scheduled_functions (
  id text COLLATE "C" PRIMARY KEY,
  name text COLLATE "C" NOT NULL,
  kind text COLLATE "C" NOT NULL CHECK (kind IN ('mutation', 'action')),
  state text COLLATE "C" NOT NULL CHECK (state IN ('pending', 'inProgress', 'success', 'failed', 'canceled')),
  due double precision,
  scheduled_time double precision NOT NULL,
  started_time double precision,
  completed_time double precision,
  attempts integer NOT NULL DEFAULT 0,
  worker text COLLATE "C",
  parked boolean NOT NULL DEFAULT false,
  refused text COLLATE "C" NOT NULL DEFAULT '',
  reserved_by text COLLATE "C",
  reserved_until double precision,
  error text,
  pending_reason text,
  args text NOT NULL
) WITH (
  fillfactor = 60,
  autovacuum_vacuum_scale_factor = 0.01,
  autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_cost_delay = 0,
  autovacuum_analyze_scale_factor = 0.05
);

-- Each index holds only the rows its question is about, so that looking for due work costs the same with ten rows and
-- with ten million, pending or finished.
CREATE INDEX scheduled_functions_due ON {schema}.scheduled_functions (kind, due, id)
  WHERE state = 'pending' AND NOT parked;
CREATE INDEX scheduled_functions_parked ON {schema}.scheduled_functions (name, refused, due, id)
  WHERE state = 'pending' AND parked;
CREATE INDEX scheduled_functions_in_progress ON {schema}.scheduled_functions (worker)
  WHERE state = 'inProgress';
CREATE INDEX scheduled_functions_completed ON {schema}.scheduled_functions (completed_time)
  WHERE completed_time IS NOT NULL;
CREATE INDEX scheduled_functions_unusual ON {schema}.scheduled_functions (state, id)
  WHERE state IN ('inProgress', 'failed', 'canceled');

-- Transactions of the last minutes, for whoever lost the answer to a commit: it inserts the same token, void. Either it is
-- the first, and the transaction has not been committed and never will be; or it finds the token there. (The number of a
-- transaction is no proof: after a crash the server gives it again to another.) A token begins with the time.
CREATE TABLE {schema}.commits (
  token text COLLATE "C" PRIMARY KEY,
  void boolean NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- Processes that run scheduled functions: until when each is to be taken for alive, and which functions it has, by
-- path, with the fingerprint of their signature.
CREATE TABLE {schema}.workers (
  id text COLLATE "C" PRIMARY KEY,
  expires double precision NOT NULL,
  started_time double precision NOT NULL,
  functions text NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0.0);
