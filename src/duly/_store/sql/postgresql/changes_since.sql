-- What this snapshot shows and an earlier one did not.
SELECT written FROM {schema}.changes
WHERE xid >= pg_snapshot_xmin($1::text::pg_snapshot) AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot);
