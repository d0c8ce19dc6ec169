-- Whether the token is nobody's but ours.
SELECT void FROM {schema}.commits WHERE token = $1;
