-- The arguments go with their function.
DELETE FROM _scheduled_arguments WHERE id = ?1;
