---- Accepted: totals. Name, statement, then for each noised column what bounds a patient.

-- a rollup
SELECT sex, region, COUNT(*) AS n FROM patients GROUP BY ROLLUP (sex, region);
-- = n: one row per patient, l1 1, keys public 27, laplace
-- oracle: empty finest groups are answered too, beside the totals

-- a rollup told apart by GROUPING
SELECT sex, COUNT(*) AS n, GROUPING(sex) AS g FROM patients GROUP BY ROLLUP (sex) ORDER BY g, sex;
-- = n: one row per patient, l1 1, keys public 3, laplace

-- a cube of sums and means
SELECT department, readmitted, SUM(cost) AS s, AVG(cost) AS m FROM visits GROUP BY CUBE
(department, readmitted);
-- = s: row rank, l1 400000, keys public 39, laplace
-- = m.sum: row rank, l1 200000, keys public 39, laplace
-- = m.count: row rank, l1 20, keys public 39, laplace
-- oracle: empty finest groups are answered too, beside the totals

-- grouping sets
SELECT department, los, COUNT(*) AS n FROM visits WHERE los < 5 GROUP BY GROUPING SETS
((department), (los), ());
-- = n: norm scaling, l1 20, keys public 65, laplace

-- patients in a rollup of patients' columns
SELECT sex, COUNT(DISTINCT patient_id) AS n FROM visits JOIN patients USING (patient_id) GROUP BY
ROLLUP (sex);
-- = n: per-patient clip, l1 1, keys public 3, laplace

-- a rollup with HAVING
SELECT department, COUNT(*) AS n FROM visits GROUP BY ROLLUP (department) HAVING COUNT(*) > 100;
-- = n: row rank, l1 20, keys public 13, laplace
