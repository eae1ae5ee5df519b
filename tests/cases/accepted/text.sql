---- Accepted: text. Name, statement, then for each noised column what bounds a patient.

-- LIKE
SELECT COUNT(*) FROM visits WHERE diagnosis LIKE 'A%';
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- NOT LIKE
SELECT COUNT(*) FROM visits WHERE diagnosis NOT LIKE 'A%';
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- ILIKE
SELECT COUNT(*) FROM visits WHERE diagnosis ILIKE 'a%';
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- a constant regular expression
SELECT COUNT(*) FROM visits WHERE regexp_matches(diagnosis, '^[AB]0');
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- UPPER of a category
SELECT UPPER(department) AS d, COUNT(*) FROM visits GROUP BY d;
-- = count(*): row rank, l1 20, keys public 13, laplace

-- length
SELECT LENGTH(department) AS n, COUNT(*) FROM visits GROUP BY n;
-- = count(*): row rank, l1 20, keys public 8, laplace

-- concatenation
SELECT sex || '/' || region AS k, COUNT(*) FROM patients GROUP BY k;
-- = count(*): one row per patient, l1 1, keys public 17, laplace

-- replace
SELECT COUNT(*) FROM visits WHERE REPLACE(diagnosis, '.', '') = 'A000';
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- starts_with
SELECT COUNT(*) FROM visits WHERE starts_with(department, 'der');
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- strpos
SELECT COUNT(*) FROM visits WHERE strpos(department, 'logy') > 0;
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- text as number
SELECT COUNT(*) FROM visits WHERE TRY_CAST(RIGHT(diagnosis, 1) AS INTEGER) > 4;
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- distinct texts
SELECT COUNT(DISTINCT diagnosis) FROM visits;
-- = count(distinct diagnosis): row rank, l1 20, keys public 1, laplace
