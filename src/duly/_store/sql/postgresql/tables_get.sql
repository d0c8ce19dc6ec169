-- The name that a tag stands for.
SELECT name FROM {schema}.tables WHERE tag = $1;
