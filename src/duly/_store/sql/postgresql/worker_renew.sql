-- A worker's word that it lives.
UPDATE {schema}.workers SET expires = $2 WHERE id = $1;
