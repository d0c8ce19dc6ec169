-- A new document. The id is new by construction; a clash would be a bug and is refused by the primary key.
INSERT INTO _documents (id, body) VALUES (?1, ?2);
