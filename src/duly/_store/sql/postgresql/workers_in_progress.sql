-- The workers that have actions in progress.
SELECT DISTINCT worker FROM {schema}.scheduled_functions WHERE state = 'inProgress';
