-- Declares an index; its entries are written in the same transaction.
INSERT INTO _indexes (tag, name, fields) VALUES (?1, ?2, ?3) RETURNING id;
