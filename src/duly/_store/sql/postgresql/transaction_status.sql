-- What became of a transaction: committed, aborted, in progress; NULL if that is so long ago that nobody knows.
SELECT pg_xact_status($1::xid8);
