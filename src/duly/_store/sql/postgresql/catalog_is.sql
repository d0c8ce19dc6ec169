-- Whether the indexes that this process knows are all there are: found if so.
SELECT 1 FROM {schema}.catalog WHERE version = $1;
