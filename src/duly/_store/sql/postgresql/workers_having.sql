-- The fingerprints of a function's signature that workers publish which are to be taken for alive.
SELECT DISTINCT functions::json ->> $1 FROM {schema}.workers WHERE expires > $2 AND functions::json ->> $1 IS NOT NULL;
