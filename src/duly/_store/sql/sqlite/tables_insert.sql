-- Remembers a table's name. Another process may have been first.
INSERT OR IGNORE INTO _tables (tag, name) VALUES (?1, ?2);
