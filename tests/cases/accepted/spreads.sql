---- Accepted: spreads. Name, statement, then for each noised column what bounds a patient.

-- a standard deviation
SELECT STDDEV(birth_year) AS s FROM patients;
-- = s.1: one row per patient, l1 1, keys public 1, laplace
-- = s.3: one row per patient, l1 63, keys public 1, laplace
-- = s.2: one row per patient, l1 1984.5, keys public 1, laplace

-- a variance by department
SELECT department, VAR_POP(cost) AS v FROM visits GROUP BY department;
-- = v.1: row rank, l1 20, keys public 13, laplace
-- = v.3: row rank, l1 200000, keys public 13, laplace
-- = v.2: row rank, l1 9.99997e+08, keys public 13, laplace

-- a correlation
SELECT CORR(cost, los) AS c FROM visits;
-- = c.1: row rank, l1 20, keys public 1, laplace
-- = c.3: row rank, l1 200000, keys public 1, laplace
-- = c.4: row rank, l1 600, keys public 1, laplace
-- = c.2: row rank, l1 6e+06, keys public 1, laplace
-- = c.5: row rank, l1 9000, keys public 1, laplace
-- = c.6: row rank, l1 9.99997e+08, keys public 1, laplace

-- a regression
SELECT REGR_SLOPE(cost, los) AS slope, REGR_INTERCEPT(cost, los) AS start FROM visits;
-- = slope.1: row rank, l1 20, keys public 1, laplace
-- = slope.3: row rank, l1 200000, keys public 1, laplace
-- = slope.4: row rank, l1 600, keys public 1, laplace
-- = slope.2: row rank, l1 6e+06, keys public 1, laplace
-- = slope.5: row rank, l1 9000, keys public 1, laplace

-- a covariance of some rows
SELECT COVAR_SAMP(cost, los) FILTER (WHERE readmitted) AS c FROM visits;
-- = c.1: norm scaling, l1 20, keys public 1, laplace
-- = c.3: norm scaling, l1 200000, keys public 1, laplace
-- = c.4: norm scaling, l1 600, keys public 1, laplace
-- = c.2: norm scaling, l1 6e+06, keys public 1, laplace

-- a spread of per-patient means
SELECT STDDEV_POP(m) AS s FROM (SELECT patient_id, AVG(cost) AS m FROM visits GROUP BY patient_id)
AS t;
-- = s.1: one row per patient, l1 1, keys public 1, laplace
-- = s.3: one row per patient, l1 10000, keys public 1, laplace
-- = s.2: one row per patient, l1 5e+07, keys public 1, laplace

-- explained variance
SELECT REGR_R2(cost, los) AS r FROM visits WHERE cost < 5000;
-- = r.1: norm scaling, l1 20, keys public 1, laplace
-- = r.3: norm scaling, l1 50000, keys public 1, laplace
-- = r.4: norm scaling, l1 600, keys public 1, laplace
-- = r.2: norm scaling, l1 1.5e+06, keys public 1, laplace
-- = r.5: norm scaling, l1 9000, keys public 1, laplace
-- = r.6: norm scaling, l1 6.24998e+07, keys public 1, laplace
