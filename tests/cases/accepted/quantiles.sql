---- Accepted: quantiles. Name, statement, then for each noised column what bounds a patient.

-- a median
SELECT MEDIAN(cost) AS m FROM visits;
-- = m.counts: row rank, l1 24, keys public 1, laplace

-- two quantiles of one tree
SELECT QUANTILE_CONT(cost, 0.1) AS low, QUANTILE_CONT(cost, 0.9) AS high FROM visits;
-- = low.counts: row rank, l1 24, keys public 1, laplace

-- a quantile by department
SELECT department, QUANTILE_CONT(cost, 0.5) AS m FROM visits GROUP BY department;
-- = m.counts: row rank, l1 24, keys public 13, laplace

-- a median of some rows
SELECT MEDIAN(cost) FILTER (WHERE los > 7) AS m FROM visits;
-- = m.counts: per-patient clip, l1 24, keys public 1, laplace

-- a percentile within group
SELECT PERCENTILE_CONT(0.25) WITHIN GROUP (ORDER BY los) AS q FROM visits;
-- = q.counts: row rank, l1 24, keys public 1, laplace

-- extremes
SELECT MIN(birth_year) AS first, MAX(birth_year) AS last FROM patients;
-- = first.counts: one row per patient, l1 3, keys public 1, laplace

-- a median date
SELECT MEDIAN(visit_date) AS d FROM visits WHERE visit_date >= '2020-01-01';
-- = d.counts: per-patient clip, l1 24, keys public 1, laplace
-- oracle: the median of days is a day, where DuckDB gives the noon between two

-- the median of a per-patient count
SELECT MEDIAN(n) AS m FROM (SELECT patient_id, COUNT(*) AS n FROM visits GROUP BY patient_id) AS
t;
-- = m.counts: one row per patient, l1 3, keys public 1, laplace

-- a quantile narrowed by a condition
SELECT MEDIAN(cost) AS m FROM visits WHERE cost BETWEEN 100 AND 1000;
-- = m.counts: per-patient clip, l1 24, keys public 1, laplace

-- a mode
SELECT MODE(department) AS m FROM visits;
-- = m.counts: row rank, l1 8, keys public 1, laplace

-- a mode by sex
SELECT sex, MODE(region) AS m FROM patients GROUP BY sex;
-- = m.counts: one row per patient, l1 1, keys public 3, laplace
-- oracle: of equally frequent values any may be the mode

-- a median across a join
SELECT sex, MEDIAN(value) AS m FROM labs JOIN visits USING (visit_id) JOIN patients USING
(patient_id) GROUP BY sex;
-- = m.counts: row rank, l1 24, keys public 3, laplace

-- half a median
SELECT MEDIAN(cost) / 2 AS h FROM visits;
-- = h.counts: row rank, l1 24, keys public 1, laplace

-- a median beside a count
SELECT department, COUNT(*) AS n, MEDIAN(los) AS m FROM visits GROUP BY department ORDER BY m DESC
LIMIT 3;
-- = n: row rank, l1 20, keys public 13, laplace
-- = m.counts: row rank, l1 24, keys public 13, laplace
