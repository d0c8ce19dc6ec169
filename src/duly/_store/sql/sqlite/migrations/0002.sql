-- Schema version 2: several versions of the code at work at once.

-- The fingerprints of the signatures that do not take a function's arguments, with spaces between them.
ALTER TABLE _scheduled_functions ADD COLUMN refused TEXT NOT NULL DEFAULT '';

-- Who can run it is the same for all parked ones of a name that the same signatures refused.
DROP INDEX _scheduled_functions_parked;
CREATE INDEX _scheduled_functions_parked ON _scheduled_functions (name, refused, due, id)
  WHERE state = 'pending' AND parked = 1;

-- The fingerprints of the functions that a worker can run: a JSON object by path.
ALTER TABLE _workers ADD COLUMN functions TEXT NOT NULL DEFAULT '{}';
