-- From here on every writer knows of the new index.
UPDATE {schema}.catalog SET version = version + 1;
