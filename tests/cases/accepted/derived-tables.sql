---- Accepted: derived tables. Name, statement, then for each noised column what bounds a patient.

-- a derived table
SELECT COUNT(*) FROM (SELECT department, cost FROM visits WHERE cost > 100) AS t WHERE
department = 'surgery';
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- a CTE
WITH dear AS (SELECT * FROM visits WHERE cost > 1000) SELECT department, COUNT(*) FROM dear
GROUP BY department;
-- = count(*): norm scaling, l1 20, keys public 13, laplace

-- a CTE used twice
WITH v AS (SELECT patient_id, visit_id, los FROM visits) SELECT COUNT(*) FROM v a JOIN v b ON
a.visit_id = b.visit_id;
-- = count(*): row rank, l1 20, keys public 1, laplace

-- a computed column
SELECT AVG(k) FROM (SELECT cost / 1000 AS k FROM visits) AS t;
-- = avg(k).sum: row rank, l1 200, keys public 1, laplace
-- = avg(k).count: row rank, l1 20, keys public 1, laplace

-- a star
SELECT COUNT(*) FROM (SELECT * FROM patients) AS p WHERE p.sex = 'M';
-- = count(*): one row per patient, l1 1, keys public 1, laplace

-- a star without a column
SELECT COUNT(*) FROM (SELECT * EXCLUDE (cost) FROM visits) AS v;
-- = count(*): row rank, l1 20, keys public 1, laplace

-- a filter on a released count in an outer SELECT reads noisy numbers only
SELECT * FROM (SELECT department, COUNT(*) AS n FROM visits GROUP BY department) AS t WHERE n >
20;
-- = n: row rank, l1 20, keys public 13, laplace

-- a total of released counts
SELECT SUM(n) FROM (SELECT department, COUNT(*) AS n FROM visits GROUP BY department) AS t;
-- = count, part 1: row rank, l1 20, keys public 13, laplace

-- two releases joined
SELECT a.department, a.n, b.c FROM (SELECT department, COUNT(*) AS n FROM visits GROUP BY
department) AS a JOIN (SELECT department, AVG(cost) AS c FROM visits GROUP BY department) AS b
ON a.department = b.department;
-- = n: row rank, l1 20, keys public 13, laplace
-- = c.sum: row rank, l1 200000, keys public 13, laplace
-- = c.count: row rank, l1 20, keys public 13, laplace

-- CTE over CTE
WITH a AS (SELECT patient_id, los FROM visits), b AS (SELECT los + 1 AS m FROM a WHERE los < 10)
SELECT SUM(m) FROM b;
-- = sum(m): per-patient clip, l1 200, keys public 1, laplace

-- a renamed key
SELECT d, COUNT(*) FROM (SELECT department AS d FROM visits) AS t GROUP BY d;
-- = count(*): row rank, l1 20, keys public 13, laplace

-- a constant instead of the key that limited rows
WITH g AS (SELECT patient_id, 1 AS same, department FROM visits) SELECT same, COUNT(*) FROM g
GROUP BY same;
-- = count(*): row rank, l1 20, keys public 1, laplace
