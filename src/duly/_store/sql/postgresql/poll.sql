-- The net under lost notifications, once a second: what is due next, whether anything is parked, and who else is there.
SELECT (
  SELECT due FROM {schema}.scheduled_functions WHERE kind = 'mutation' AND state = 'pending' AND NOT parked
    AND (reserved_until IS NULL OR reserved_until <= $1) ORDER BY due LIMIT 1
), (
  SELECT due FROM {schema}.scheduled_functions WHERE kind = 'action' AND state = 'pending' AND NOT parked
    AND (reserved_until IS NULL OR reserved_until <= $1) ORDER BY due LIMIT 1
), EXISTS (
  SELECT 1 FROM {schema}.scheduled_functions WHERE state = 'pending' AND parked
), (
  SELECT string_agg(id, ' ' ORDER BY id) FROM (
    SELECT id FROM {schema}.workers UNION SELECT id FROM {schema}.followers WHERE until > $1
  ) AS others WHERE id <> ALL(string_to_array($2, ' '))
);
