-- Those who follow.
SELECT id, address, until FROM _followers;
