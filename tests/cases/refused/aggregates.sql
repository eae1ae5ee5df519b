---- Refused: aggregates. Name, statement, then the rule.

-- a sum without bounds
SELECT SUM(cost / los) FROM visits;
-- ! unbounded

-- an average without bounds
SELECT AVG(LENGTH(diagnosis)) FROM visits;
-- ! unbounded

-- a sum with one end open
SELECT SUM(GREATEST(cost / los, 0)) FROM visits;
-- ! unbounded

-- one value of many
SELECT ANY_VALUE(diagnosis) FROM visits;
-- ! window

-- the first value
SELECT FIRST(diagnosis) FROM visits;
-- ! unknown-aggregate

-- all values
SELECT LIST(cost) FROM visits;
-- ! unknown-aggregate

-- all values as text
SELECT STRING_AGG(diagnosis, ',') FROM visits;
-- ! unknown-aggregate

-- the value at the largest other
SELECT ARG_MAX(diagnosis, cost) FROM visits;
-- ! unknown-aggregate

-- a histogram
SELECT HISTOGRAM(cost) FROM visits;
-- ! unknown-function

-- a sum of distinct values
SELECT SUM(DISTINCT cost) FROM visits;
-- ! types

-- a count of distinct pairs
SELECT COUNT(DISTINCT (department, los)) FROM visits;
-- ! unknown-function

-- the sum of row keys
SELECT SUM(visit_id) FROM visits;
-- ! types
