-- The new bodies of documents that were read ahead, if they are still as they were read.
UPDATE {schema}.documents AS d SET body = n.body
FROM unnest($1::text[], $2::text[], $3::tid[], $4::text[]) AS n (id, body, place, version)
WHERE d.ctid = n.place AND d.id = n.id AND d.xmin = n.version::xid;
