-- Long arguments, when their job is about to run.
SELECT args FROM _scheduled_arguments WHERE id = ?1;
