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

-- a list of the three least
SELECT MIN(cost, 3) FROM visits;
-- ! unknown-clause

-- a list of the three greatest of each patient
SELECT AVG(m) FROM (SELECT patient_id, MAX(cost, 3) AS m FROM visits GROUP BY patient_id) AS t;
-- ! unknown-clause

-- a second argument of MODE
SELECT MODE(los, 3) FROM visits;
-- ! unknown-clause

-- a window with a second argument
SELECT COUNT(*) FROM (SELECT MIN(los, 2) OVER (PARTITION BY patient_id) AS m FROM visits) AS t
WHERE m > 3;
-- ! unknown-clause
