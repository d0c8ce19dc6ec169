-- Schema version 3: live queries, and clients that are far away.

-- What each commit wrote, as long as somebody follows; n is never used twice.
CREATE TABLE _changes (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  time REAL NOT NULL,
  written TEXT NOT NULL
);
CREATE INDEX _changes_time ON _changes (time);

-- Processes with live queries: for how long their word is good, and where to tell them of a commit.
CREATE TABLE _followers (
  id TEXT PRIMARY KEY,
  address TEXT NOT NULL,
  until REAL NOT NULL
) WITHOUT ROWID;

-- Mutations of clients that took effect: a client that did not hear the answer asks again, and is told, not obeyed.
CREATE TABLE _client_requests (
  session TEXT NOT NULL,
  request INTEGER NOT NULL,
  time REAL NOT NULL,
  answer TEXT NOT NULL,
  PRIMARY KEY (session, request)
) WITHOUT ROWID;
CREATE INDEX _client_requests_time ON _client_requests (time);

-- Keys of administrators, as SHA-256 hashes.
CREATE TABLE _admin_keys (
  hash TEXT PRIMARY KEY,
  label TEXT NOT NULL,
  time REAL NOT NULL
) WITHOUT ROWID;

-- The span of the call that scheduled a function, as a W3C traceparent, where calls are traced.
ALTER TABLE _scheduled_functions ADD COLUMN trace TEXT;
