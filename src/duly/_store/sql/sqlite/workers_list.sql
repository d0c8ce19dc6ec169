-- Every registered process.
SELECT id, address FROM _workers;
