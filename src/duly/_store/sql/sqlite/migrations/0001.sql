-- Schema version 1. Every name begins with an underscore: the file may hold tables of the user's own beside these.

-- Names of tables and the tag that begins the ids of their documents. For people and tools; duly knows tags by name.
CREATE TABLE _tables (
  tag TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) WITHOUT ROWID;

-- All documents of all tables, by id: by table, then by creation. The body is JSON text without _id and _creationTime.
CREATE TABLE _documents (
  id TEXT PRIMARY KEY,
  body TEXT NOT NULL
) WITHOUT ROWID;

-- The indexes that every process keeps up, whether its own code declares them or not.
CREATE TABLE _indexes (
  id INTEGER PRIMARY KEY,
  tag TEXT NOT NULL,
  name TEXT NOT NULL,
  fields TEXT NOT NULL,
  UNIQUE (tag, name, fields)
);

-- Index entries: the key orders as the fields' values do, and the id, which begins with the time, breaks the tie.
CREATE TABLE _index_entries (
  index_id INTEGER NOT NULL,
  key BLOB NOT NULL,
  id TEXT NOT NULL,
  PRIMARY KEY (index_id, key, id)
) WITHOUT ROWID;

-- Scheduled functions. Times are milliseconds since the Unix epoch. Ids are in the order of scheduling.
-- due is NULL once the function has started or finished. parked = 1: no code that looked at it had the function.
-- args is NULL where the arguments are long and stand in _scheduled_arguments.
-- OR, not IN, here and in the last index: for IN (…) SQLite builds a table of the values anew for each row that is written.
CREATE TABLE _scheduled_functions (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind = 'mutation' OR kind = 'action'),
  state TEXT NOT NULL CHECK (
    state = 'pending' OR state = 'success' OR state = 'inProgress' OR state = 'failed' OR state = 'canceled'
  ),
  due REAL,
  scheduled_time REAL NOT NULL,
  started_time REAL,
  completed_time REAL,
  attempts INTEGER NOT NULL DEFAULT 0,
  worker TEXT,
  parked INTEGER NOT NULL DEFAULT 0,
  error TEXT,
  pending_reason TEXT,
  args TEXT
) WITHOUT ROWID;

-- Each index holds only the rows its question is about, so that looking for due work costs the same
-- with ten rows and with ten million, pending or finished.
CREATE INDEX _scheduled_functions_due ON _scheduled_functions (kind, due, id) WHERE state = 'pending' AND parked = 0;
CREATE INDEX _scheduled_functions_parked ON _scheduled_functions (name, due, id) WHERE state = 'pending' AND parked = 1;
CREATE INDEX _scheduled_functions_in_progress ON _scheduled_functions (worker) WHERE state = 'inProgress';
CREATE INDEX _scheduled_functions_completed ON _scheduled_functions (completed_time) WHERE completed_time IS NOT NULL;
CREATE INDEX _scheduled_functions_unusual ON _scheduled_functions (state, id)
  WHERE state = 'inProgress' OR state = 'failed' OR state = 'canceled';

CREATE TABLE _scheduled_arguments (
  id TEXT PRIMARY KEY,
  args TEXT NOT NULL
) WITHOUT ROWID;

-- Processes that run scheduled functions, and where to send the datagram that wakes them.
CREATE TABLE _workers (
  id TEXT PRIMARY KEY,
  address TEXT NOT NULL,
  started_time REAL NOT NULL
) WITHOUT ROWID;
