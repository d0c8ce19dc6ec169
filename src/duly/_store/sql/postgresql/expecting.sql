-- A step that must touch as many rows as it was given, or the whole transaction fails: also a commit that is sent along
-- with it, before anybody has seen how many it touched. What is wrong is in the value that can't be a number.
WITH step AS ({step}) SELECT CASE WHEN count(*) = {expected} THEN 0
  ELSE ('{name} touched ' || count(*) || ' of {expected} rows')::integer END FROM step;
