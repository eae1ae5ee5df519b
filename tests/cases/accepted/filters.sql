---- Accepted: filters. Name, statement, then for each noised column what bounds a patient.

-- AND and OR
SELECT COUNT(*) FROM visits WHERE (los > 3 OR cost > 1000) AND NOT readmitted;
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- IN
SELECT COUNT(*) FROM visits WHERE los IN (1, 2, 3);
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- NOT IN
SELECT COUNT(*) FROM visits WHERE los NOT IN (1, 2, 3);
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- IS NULL
SELECT COUNT(*) FROM visits WHERE department IS NULL;
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- a column against itself drops NULL
SELECT COUNT(*) FROM visits WHERE department = department;
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- IS DISTINCT FROM
SELECT COUNT(*) FROM visits WHERE department IS DISTINCT FROM 'surgery';
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- IS TRUE
SELECT COUNT(*) FROM visits WHERE readmitted IS TRUE;
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- a word no policy knows
SELECT COUNT(*) FROM visits WHERE department = 'alchemy';
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- a comparison with NULL holds nowhere
SELECT COUNT(*) FROM visits WHERE los < NULL;
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- FILTER on each count
SELECT COUNT(*) FILTER (WHERE readmitted) AS r, COUNT(*) FILTER (WHERE los > 3) AS l FROM visits;
-- = r: norm scaling, l1 20, keys public 1, laplace
-- = l: norm scaling, l1 20, keys public 1, laplace

-- a condition that is always true
SELECT COUNT(*) FROM visits WHERE 1 = 1;
-- = count(*): row rank, l1 20, keys public 1, laplace

-- a condition that never holds
SELECT COUNT(*) FROM visits WHERE 1 = 0;
-- = count(*): row rank, l1 20, keys public 1, laplace
