-- What time it is at the database, in milliseconds. Asked to learn how far our own clock is off, and for nothing else.
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::double precision;
