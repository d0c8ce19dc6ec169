-- Every index that is kept up. Read once, and again only after another process has committed.
SELECT id, tag, name, fields FROM _indexes;
