-- Every worker, and until when it is to be taken for alive.
SELECT id, expires FROM {schema}.workers;
