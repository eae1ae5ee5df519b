---- Accepted: nested. Name, statement, then for each noised column what bounds a patient.

-- dearer than the mean
SELECT COUNT(*) AS n FROM visits WHERE cost > (SELECT AVG(cost) FROM visits);
-- = sum(cost), part 1: row rank, l1 200000, keys public 1, laplace
-- = count, part 2: row rank, l1 20, keys public 1, laplace
-- = n: per-patient clip, l1 20, keys public 1, laplace

-- dearer than the department's mean
SELECT v.department, COUNT(*) AS n FROM visits AS v JOIN (SELECT department, AVG(cost) AS m FROM
visits GROUP BY department) AS d ON d.department = v.department WHERE v.cost > d.m GROUP BY
v.department;
-- = sum(cost), part 1: row rank, l1 200000, keys public 13, laplace
-- = count, part 2: row rank, l1 20, keys public 13, laplace
-- = n: norm scaling, l1 20, keys public 13, laplace

-- shares of a total
SELECT department, COUNT(*) * 100.0 / (SELECT COUNT(*) FROM visits) AS percent FROM visits GROUP
BY department;
-- = count, part 1: row rank, l1 20, keys public 1, laplace
-- = percent: count: row rank, l1 20, keys public 13, laplace

-- in the largest departments
SELECT COUNT(DISTINCT patient_id) AS n FROM visits WHERE department IN (SELECT department FROM
(SELECT department, COUNT(*) AS n FROM visits GROUP BY department ORDER BY n DESC LIMIT 3) AS t);
-- = count, part 1: row rank, l1 20, keys public 13, laplace
-- = n: per-patient clip, l1 1, keys public 1, laplace

-- a nested median
SELECT COUNT(*) AS n FROM patients WHERE birth_year < (SELECT MEDIAN(birth_year) FROM patients);
-- = count, part 1: one row per patient, l1 3, keys public 1, laplace
-- = n: one row per patient, l1 1, keys public 1, laplace
