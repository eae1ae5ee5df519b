---- Accepted: case. Name, statement, then for each noised column what bounds a patient.

-- CASE inside SUM
SELECT SUM(CASE WHEN readmitted THEN cost ELSE 0 END) FROM visits;
-- = sum(case when readmitted then cost else 0 end): per-patient clip, l1 400000, keys public 1, laplace

-- CASE without ELSE inside SUM
SELECT SUM(CASE WHEN readmitted THEN cost END) FROM visits;
-- = sum(case when readmitted then cost end): per-patient clip, l1 400000, keys public 1, laplace

-- CASE of a value
SELECT SUM(CASE department WHEN 'surgery' THEN 2 WHEN 'urology' THEN 1 ELSE 0 END) FROM visits;
-- = sum(case department when 'surgery' then 2 when 'urology' then 1 else 0 end): row rank, l1 40, keys public 1, laplace

-- IF
SELECT SUM(IF(los > 3, 1, 0)) FROM visits;
-- = sum(case when los > 3 then 1 else 0 end): per-patient clip, l1 20, keys public 1, laplace

-- COALESCE inside SUM
SELECT SUM(COALESCE(cost, 100)) FROM visits;
-- = sum(coalesce(cost, 100)): row rank, l1 400000, keys public 1, laplace

-- NULLIF inside AVG
SELECT AVG(NULLIF(los, 0)) FROM visits;
-- = avg(nullif(los, 0)).sum: row rank, l1 600, keys public 1, laplace
-- = avg(nullif(los, 0)).count: row rank, l1 20, keys public 1, laplace

-- COUNT of a CASE
SELECT COUNT(CASE WHEN los > 3 THEN 1 END) FROM visits;
-- = count(case when los > 3 then 1 end): per-patient clip, l1 20, keys public 1, laplace

-- GREATEST with a constant
SELECT SUM(GREATEST(los, 5)) FROM visits;
-- = sum(greatest(los, 5)): row rank, l1 1200, keys public 1, laplace
-- oracle: clipping keeps NULL, where DuckDB would put the constant in its place

-- LEAST with a constant
SELECT SUM(LEAST(cost, 100)) FROM visits;
-- = sum(least(cost, 100)): row rank, l1 2000, keys public 1, laplace
-- oracle: clipping keeps NULL, where DuckDB would put the constant in its place

-- CASE mixing whole and real
SELECT SUM(CASE WHEN readmitted THEN los ELSE 0.5 END) FROM visits;
-- = sum(case when readmitted then los else 0.5 end): row rank, l1 1200, keys public 1, laplace
