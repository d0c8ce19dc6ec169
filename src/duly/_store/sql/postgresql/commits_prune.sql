-- Tokens that nobody asks for any more.
DELETE FROM {schema}.commits WHERE token < $1;
