-- The index holds all documents.
UPDATE {schema}.indexes SET ready = true WHERE id = $1;
