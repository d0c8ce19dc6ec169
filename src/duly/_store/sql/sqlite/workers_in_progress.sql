-- The workers that have actions in progress.
SELECT DISTINCT worker FROM _scheduled_functions INDEXED BY _scheduled_functions_in_progress
WHERE state = 'inProgress';
