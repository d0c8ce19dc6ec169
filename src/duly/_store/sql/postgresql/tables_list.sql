-- Every table that has a name.
SELECT tag, name FROM {schema}.tables ORDER BY tag;
