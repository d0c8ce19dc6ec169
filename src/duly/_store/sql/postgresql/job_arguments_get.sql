-- Long arguments, when their job is about to run.
SELECT args FROM {schema}.scheduled_functions WHERE id = $1;
