---- Accepted: quantiles and spreads. Name, statement, then for each noised column what bounds a patient.

-- a median
SELECT MEDIAN(cost) FROM visits;
-- = median(cost).counts: row rank, l1 24, keys public 1, laplace

-- a median by group
SELECT department, MEDIAN(cost) FROM visits GROUP BY department;
-- = median(cost).counts: row rank, l1 24, keys public 13, laplace

-- quantiles read off one tree
SELECT QUANTILE_CONT(cost, 0.1) AS a, QUANTILE_CONT(cost, 0.9) AS b, MEDIAN(cost) AS m FROM
visits;
-- = a.counts: row rank, l1 24, keys public 1, laplace

-- the largest value
SELECT MAX(cost) FROM visits;
-- = max(cost).counts: row rank, l1 24, keys public 1, laplace

-- the smallest date
SELECT MIN(visit_date) FROM visits;
-- = min(visit_date).counts: row rank, l1 24, keys public 1, laplace

-- the largest over patients
SELECT MAX(birth_year) FROM patients;
-- = max(birth_year).counts: one row per patient, l1 3, keys public 1, laplace

-- the most frequent department
SELECT MODE(department) FROM visits;
-- = mode(department).counts: row rank, l1 8, keys public 1, laplace

-- a variance
SELECT VAR_POP(cost) FROM visits;
-- = var_pop(cost).1: row rank, l1 20, keys public 1, laplace
-- = var_pop(cost).3: row rank, l1 200000, keys public 1, laplace
-- = var_pop(cost).2: row rank, l1 9.99997e+08, keys public 1, laplace

-- a standard deviation by group
SELECT department, STDDEV(cost) FROM visits GROUP BY department;
-- = stddev(cost).1: row rank, l1 20, keys public 13, laplace
-- = stddev(cost).3: row rank, l1 200000, keys public 13, laplace
-- = stddev(cost).2: row rank, l1 9.99997e+08, keys public 13, laplace

-- a correlation
SELECT CORR(cost, los) FROM visits;
-- = corr(cost, los).1: row rank, l1 20, keys public 1, laplace
-- = corr(cost, los).3: row rank, l1 200000, keys public 1, laplace
-- = corr(cost, los).4: row rank, l1 600, keys public 1, laplace
-- = corr(cost, los).2: row rank, l1 6e+06, keys public 1, laplace
-- = corr(cost, los).5: row rank, l1 9000, keys public 1, laplace
-- = corr(cost, los).6: row rank, l1 9.99997e+08, keys public 1, laplace

-- a slope
SELECT REGR_SLOPE(cost, los) FROM visits;
-- = regr_slope(cost, los).1: row rank, l1 20, keys public 1, laplace
-- = regr_slope(cost, los).3: row rank, l1 200000, keys public 1, laplace
-- = regr_slope(cost, los).4: row rank, l1 600, keys public 1, laplace
-- = regr_slope(cost, los).2: row rank, l1 6e+06, keys public 1, laplace
-- = regr_slope(cost, los).5: row rank, l1 9000, keys public 1, laplace

-- a median with FILTER
SELECT MEDIAN(los) FILTER (WHERE readmitted) FROM visits;
-- = median(los) filter(where readmitted).counts: per-patient clip, l1 24, keys public 1, laplace
