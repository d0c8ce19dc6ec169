-- The name that a tag stands for.
SELECT name FROM _tables WHERE tag = ?1;
