-- When the first of the finished functions finished.
SELECT min(completed_time) FROM {schema}.scheduled_functions WHERE completed_time IS NOT NULL;
