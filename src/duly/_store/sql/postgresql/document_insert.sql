-- New documents. The ids are new by construction; a clash would be a bug and is refused by the primary key.
INSERT INTO {schema}.documents (id, body) SELECT * FROM unnest($1::text[], $2::text[]);
