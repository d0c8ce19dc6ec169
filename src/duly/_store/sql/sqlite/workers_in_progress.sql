-- The workers that have actions in progress.
SELECT DISTINCT worker FROM _scheduled_functions WHERE state = 'inProgress';
