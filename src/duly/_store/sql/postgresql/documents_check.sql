-- Those of the documents that are still as they were read ahead. Found by where they are: a look into the index would
-- lock the page of it.
SELECT 1 FROM unnest($1::text[], $2::tid[], $3::text[]) AS n (id, place, version)
JOIN {schema}.documents AS d ON d.ctid = n.place WHERE d.id = n.id AND d.xmin = n.version::xid;
