---- Accepted: having order limit. Name, statement, then for each noised column what bounds a patient.

-- HAVING on a count
SELECT department, COUNT(*) AS n FROM visits GROUP BY department HAVING COUNT(*) > 20;
-- = n: row rank, l1 20, keys public 13, laplace

-- HAVING on an aggregate that is not shown is paid as well
SELECT department, COUNT(*) FROM visits GROUP BY department HAVING SUM(cost) > 20000;
-- = count(*): row rank, l1 20, keys public 13, laplace
-- = sum(cost), part 2: row rank, l1 400000, keys public 13, laplace

-- ORDER BY a count
SELECT department, COUNT(*) AS n FROM visits WHERE department IS NOT NULL GROUP BY department
ORDER BY n DESC, department;
-- = n: row rank, l1 20, keys public 12, laplace

-- LIMIT over released rows
SELECT department, COUNT(*) AS n FROM visits WHERE department IS NOT NULL GROUP BY department
ORDER BY n DESC, department LIMIT 3;
-- = n: row rank, l1 20, keys public 12, laplace

-- OFFSET
SELECT department, COUNT(*) AS n FROM visits WHERE department IS NOT NULL GROUP BY department
ORDER BY n DESC, department LIMIT 3 OFFSET 2;
-- = n: row rank, l1 20, keys public 12, laplace

-- arithmetic on aggregates
SELECT SUM(cost) / COUNT(*) FROM visits;
-- = sum(cost) / count(*): sum(cost): row rank, l1 400000, keys public 1, laplace
-- = sum(cost) / count(*): count: row rank, l1 20, keys public 1, laplace

-- a share in percent
SELECT 100.0 * COUNT(*) FILTER (WHERE readmitted) / COUNT(*) FROM visits;
-- = 100.0 * count(*) filter(where readmitted) / count(*): count: row rank, l1 20, keys public 1, laplace
-- = 100.0 * count(*) filter(where readmitted) / count(*): count: row rank, l1 20, keys public 1, laplace

-- rounding an aggregate
SELECT ROUND(AVG(cost), 1) FROM visits;
-- = round(avg(cost), 1): sum(cost): row rank, l1 200000, keys public 1, laplace
-- = round(avg(cost), 1): count: row rank, l1 20, keys public 1, laplace

-- CASE on an aggregate
SELECT department, CASE WHEN COUNT(*) > 30 THEN 'many' ELSE 'few' END AS size FROM visits WHERE
department IS NOT NULL GROUP BY department;
-- = size: count: row rank, l1 20, keys public 12, laplace

-- ORDER BY an aggregate that is not shown
SELECT department FROM visits WHERE department IS NOT NULL GROUP BY department ORDER BY COUNT(*)
DESC, department;
-- = count, part 1: row rank, l1 20, keys public 12, laplace

-- a rollup adds up noisy counts
SELECT department, COUNT(*) FROM visits GROUP BY ROLLUP (department);
-- = count(*): row rank, l1 20, keys public 13, laplace
