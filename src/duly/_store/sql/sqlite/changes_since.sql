-- What was written after the place where somebody has got to, as this snapshot has it.
SELECT n, written FROM _changes WHERE n > ?1 ORDER BY n;
