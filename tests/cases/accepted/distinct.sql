---- Accepted: distinct. Name, statement, then for each noised column what bounds a patient.

-- distinct values of a category are public
SELECT DISTINCT department FROM visits;
-- = free

-- distinct values of free text are selected
SELECT DISTINCT diagnosis FROM visits;
-- = choice of keys: row rank, l1 20, keys selected, gaussian

-- distinct values counted by group
SELECT department, COUNT(DISTINCT diagnosis) FROM visits GROUP BY department;
-- = count(distinct diagnosis): row rank, l1 20, keys public 13, laplace

-- distinct numbers
SELECT COUNT(DISTINCT los) FROM visits;
-- = count(distinct los): row rank, l1 20, keys public 1, laplace

-- distinct keys of rows
SELECT COUNT(DISTINCT visit_id) FROM visits;
-- = count(distinct visit_id): row rank, l1 20, keys public 1, laplace

-- distinct values over a join without a driver
SELECT COUNT(DISTINCT a.diagnosis) FROM visits a JOIN visits b USING (patient_id) WHERE b.los >
5;
-- = count(distinct a.diagnosis): per-patient clip, l1 20, keys public 1, laplace

-- distinct over a left join
SELECT COUNT(DISTINCT l.test) FROM visits v LEFT JOIN labs l ON v.visit_id = l.visit_id;
-- = count(distinct l.test): per-patient clip, l1 200, keys public 1, laplace

-- DISTINCT above a release
SELECT DISTINCT n > 20 AS big FROM (SELECT department, COUNT(*) AS n FROM visits GROUP BY
department) AS t;
-- = count, part 1: row rank, l1 20, keys public 13, laplace

-- patients under a condition, each once
SELECT COUNT(DISTINCT CASE WHEN los > 3 THEN patient_id END) FROM visits;
-- = count(distinct case when los > 3 then patient_id end): per-patient clip, l1 1, keys public 1, laplace

-- an approximate count is the exact one, noised
SELECT APPROX_COUNT_DISTINCT(cost) FROM visits;
-- = approx_count_distinct(cost): row rank, l1 20, keys public 1, laplace
-- plain: SELECT COUNT(DISTINCT cost) FROM visits
