-- Every table that has, or had, documents or is declared.
SELECT tag, name FROM _tables ORDER BY tag;
