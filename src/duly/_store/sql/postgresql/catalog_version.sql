-- Whether the indexes that this process knows are all there are.
SELECT version FROM {schema}.catalog;
