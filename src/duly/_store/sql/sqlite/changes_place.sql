-- The place that the feed has got to, as this snapshot has it.
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = '_changes'), 0);
