-- He does not follow any more.
DELETE FROM {schema}.followers WHERE id = $1;
