-- The functions that have parked jobs, and when the first of them is due.
SELECT name, min(due) FROM _scheduled_functions WHERE state = 'pending' AND parked = 1 GROUP BY name;
