-- A worker that has stopped, or was found dead.
DELETE FROM {schema}.workers WHERE id = $1;
