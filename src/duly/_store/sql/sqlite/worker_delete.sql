-- A process that has stopped, or was found dead.
DELETE FROM _workers WHERE id = ?1;
