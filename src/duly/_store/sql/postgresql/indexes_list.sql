-- Every index that is kept up.
SELECT id, tag, name, fields, ready FROM {schema}.indexes ORDER BY id;
