-- The functions that have parked jobs, by what has refused them, and when the first of each is due: from the first entry
-- of each in the index to that of the next, so that it costs the same however many are parked.
WITH RECURSIVE parked (name, refused, due) AS (
  SELECT * FROM (
    SELECT name, refused, due FROM _scheduled_functions WHERE state = 'pending' AND parked = 1
    ORDER BY name, refused, due LIMIT 1
  )
  UNION ALL
  SELECT next.name, next.refused, next.due FROM parked JOIN _scheduled_functions AS next ON next.id = coalesce(
    (
      SELECT j.id FROM _scheduled_functions AS j
      WHERE j.state = 'pending' AND j.parked = 1 AND j.name = parked.name AND j.refused > parked.refused
      ORDER BY j.refused, j.due LIMIT 1
    ),
    (
      SELECT j.id FROM _scheduled_functions AS j
      WHERE j.state = 'pending' AND j.parked = 1 AND j.name > parked.name
      ORDER BY j.name, j.refused, j.due LIMIT 1
    )
  )
)
SELECT name, refused, due FROM parked;
