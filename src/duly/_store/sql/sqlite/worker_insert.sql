-- A process that runs scheduled functions. Its id is random and never used again.
INSERT INTO _workers (id, address, started_time, functions) VALUES (?1, ?2, ?3, ?4);
