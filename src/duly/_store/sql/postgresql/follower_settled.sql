-- Whether all that began before that transaction has ended: what did not know of a follower yet.
SELECT pg_snapshot_xmin(pg_current_snapshot()) > $1::text::xid8;
