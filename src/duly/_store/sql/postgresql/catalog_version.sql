-- Tells of each other the sets of indexes that are kept up.
SELECT version FROM {schema}.catalog;
