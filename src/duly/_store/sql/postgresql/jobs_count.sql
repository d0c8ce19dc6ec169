-- How many scheduled functions there are between two times of scheduling.
SELECT count(*) FROM {schema}.scheduled_functions WHERE id > $1 AND id < $2;
