---- Accepted: counts. Name, statement, then for each noised column what bounds a patient.

-- every visit
SELECT COUNT(*) FROM visits;
-- = count(*): row rank, l1 20, keys public 1, laplace

-- every patient, who has one row
SELECT COUNT(*) FROM patients;
-- = count(*): one row per patient, l1 1, keys public 1, laplace

-- a column counts where it is not NULL
SELECT COUNT(cost) FROM visits;
-- = count(cost): row rank, l1 20, keys public 1, laplace

-- COUNT of a column beside COUNT of rows, each right over NULLs
SELECT COUNT(*) AS n, COUNT(department) AS d FROM visits;
-- = n: row rank, l1 20, keys public 1, laplace
-- = d: row rank, l1 20, keys public 1, laplace

-- patients with a visit, each once
SELECT COUNT(DISTINCT patient_id) FROM visits;
-- = count(distinct patient_id): per-patient clip, l1 1, keys public 1, laplace

-- patients by department, each once per department
SELECT department, COUNT(DISTINCT patient_id) FROM visits GROUP BY department;
-- = count(distinct patient_id): per-patient clip, l1 13, keys public 13, laplace

-- COUNT_IF
SELECT COUNT_IF(readmitted) FROM visits;
-- = count_if(readmitted): per-patient clip, l1 20, keys public 1, laplace

-- COUNT of a constant is COUNT of rows
SELECT COUNT(1) FROM visits;
-- = count(1): row rank, l1 20, keys public 1, laplace

-- COUNT of NULL is zero
SELECT COUNT(CAST(NULL AS INTEGER)) FROM visits;
-- = count(cast(null as int)): row rank, l1 20, keys public 1, laplace

-- rows by key
SELECT COUNT(visit_id) FROM visits;
-- = count(visit_id): row rank, l1 20, keys public 1, laplace

-- the same count twice is paid once
SELECT COUNT(*) AS a, COUNT(*) AS b FROM visits;
-- = a: row rank, l1 20, keys public 1, laplace

-- SUM of a truth value counts it
SELECT SUM(readmitted) FROM visits;
-- = sum(readmitted): row rank, l1 20, keys public 1, laplace

-- labs go to their patient through visits
SELECT COUNT(*) FROM labs;
-- = count(*): row rank, l1 200, keys public 1, laplace
