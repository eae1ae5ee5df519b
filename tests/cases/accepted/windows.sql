---- Accepted: windows. Name, statement, then for each noised column what bounds a patient.

-- the first visit of each patient
SELECT AVG(cost) FROM (SELECT cost, ROW_NUMBER() OVER (PARTITION BY patient_id ORDER BY
visit_date, cost) AS n FROM visits) AS t WHERE n = 1;
-- = avg(cost).sum: one row per patient, l1 10000, keys public 1, laplace
-- = avg(cost).count: one row per patient, l1 1, keys public 1, laplace

-- the first three, by QUALIFY
SELECT COUNT(*) FROM (SELECT patient_id, cost FROM visits QUALIFY ROW_NUMBER() OVER (PARTITION
BY patient_id ORDER BY visit_date, cost) <= 3) AS t;
-- = count(*): few rows per patient, l1 3, keys public 1, laplace

-- the cost before
SELECT SUM(CLAMP(cost - before, -1000, 1000)) FROM (SELECT cost, LAG(cost) OVER (PARTITION BY
patient_id ORDER BY visit_date, cost) AS before FROM visits) AS t;
-- = sum(clamp(cost - before, -1000, 1000)): row rank, l1 20000, keys public 1, laplace

-- a running total
SELECT AVG(CLAMP(total, 0, 10000)) FROM (SELECT SUM(cost) OVER (PARTITION BY patient_id ORDER BY
visit_date) AS total FROM visits) AS t;
-- = avg(clamp(total, 0, 10000)).sum: row rank, l1 100000, keys public 1, laplace
-- = avg(clamp(total, 0, 10000)).count: row rank, l1 20, keys public 1, laplace

-- the rank of a cost
SELECT COUNT(*) FROM (SELECT RANK() OVER (PARTITION BY patient_id ORDER BY cost DESC) AS r FROM
visits) AS t WHERE r <= 2;
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- a window over released rows
SELECT department, COUNT(*) AS n, RANK() OVER (ORDER BY COUNT(*) DESC, department) AS r FROM
visits WHERE department IS NOT NULL GROUP BY department;
-- = n: row rank, l1 20, keys public 12, laplace

-- a share of the total of released rows
SELECT department, COUNT(*) / SUM(COUNT(*)) OVER () AS share FROM visits GROUP BY department;
-- = share: count: row rank, l1 20, keys public 13, laplace
