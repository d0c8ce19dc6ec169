-- The functions that have parked jobs, and when the first of them is due.
SELECT name, min(due) FROM {schema}.scheduled_functions WHERE state = 'pending' AND parked GROUP BY name;
