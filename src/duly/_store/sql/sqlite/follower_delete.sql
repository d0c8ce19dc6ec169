-- He does not follow any more.
DELETE FROM _followers WHERE id = ?1;
