---- Accepted: keys. Name, statement, then for each noised column what bounds a patient.

-- a category is a public key, NULL included
SELECT department, COUNT(*) FROM visits GROUP BY department;
-- = count(*): row rank, l1 20, keys public 13, laplace

-- a boolean is a public key
SELECT readmitted, COUNT(*) FROM visits GROUP BY readmitted;
-- = count(*): row rank, l1 20, keys public 3, laplace

-- two keys are a product
SELECT department, readmitted, COUNT(*) FROM visits GROUP BY department, readmitted;
-- = count(*): row rank, l1 20, keys public 39, laplace

-- a bounded whole number is a public key
SELECT los, COUNT(*) FROM visits GROUP BY los;
-- = count(*): row rank, l1 20, keys public 62, laplace

-- free text is selected privately
SELECT diagnosis, COUNT(*) FROM visits GROUP BY diagnosis;
-- = choice of keys: row rank, l1 20, keys selected, laplace
-- = count(*): row rank, l1 20, keys selected, laplace

-- free text beside a category is selected
SELECT department, diagnosis, COUNT(*) FROM visits GROUP BY department, diagnosis;
-- = choice of keys: row rank, l1 20, keys selected, laplace
-- = count(*): row rank, l1 20, keys selected, laplace

-- a category of a public table
SELECT region, COUNT(*) FROM patients GROUP BY region;
-- = count(*): one row per patient, l1 1, keys public 9, laplace

-- a binned number
SELECT FLOOR(cost / 5000) * 5000 AS bin, COUNT(*) FROM visits GROUP BY bin;
-- = count(*): row rank, l1 20, keys public 6, laplace

-- CASE over literals
SELECT CASE WHEN los > 7 THEN 'long' WHEN los > 2 THEN 'middle' ELSE 'short' END AS stay,
COUNT(*) FROM visits GROUP BY stay;
-- = count(*): row rank, l1 20, keys public 3, laplace

-- CASE without ELSE has NULL
SELECT CASE WHEN los > 7 THEN 'long' END AS stay, COUNT(*) FROM visits GROUP BY stay;
-- = count(*): row rank, l1 20, keys public 2, laplace

-- a condition as key
SELECT cost > 1000 AS dear, COUNT(*) FROM visits GROUP BY dear;
-- = count(*): row rank, l1 20, keys public 3, laplace

-- WHERE narrows the public keys
SELECT department, COUNT(*) FROM visits WHERE department IN ('surgery', 'urology') GROUP BY
department;
-- = count(*): norm scaling, l1 20, keys public 2, laplace

-- WHERE drops the NULL key
SELECT department, COUNT(*) FROM visits WHERE department IS NOT NULL GROUP BY department;
-- = count(*): row rank, l1 20, keys public 12, laplace

-- WHERE narrows free text to a list
SELECT diagnosis, COUNT(*) FROM visits WHERE diagnosis IN ('A00.0', 'B00.7') GROUP BY diagnosis;
-- = count(*): norm scaling, l1 20, keys public 2, laplace

-- by number of output
SELECT department, COUNT(*) FROM visits GROUP BY 1;
-- = count(*): row rank, l1 20, keys public 13, laplace

-- GROUP BY ALL
SELECT department, readmitted, COUNT(*) FROM visits GROUP BY ALL;
-- = count(*): row rank, l1 20, keys public 39, laplace

-- a constant key is no key
SELECT 'all' AS k, COUNT(*) FROM visits GROUP BY k;
-- = count(*): row rank, l1 20, keys public 1, laplace

-- keys of one patient: one group each
SELECT sex, COUNT(*) FROM visits JOIN patients USING (patient_id) GROUP BY sex;
-- = count(*): row rank, l1 20, keys public 3, laplace

-- patients by their own keys
SELECT sex, region, COUNT(DISTINCT patient_id) FROM visits JOIN patients USING (patient_id)
GROUP BY sex, region;
-- = count(distinct patient_id): per-patient clip, l1 1, keys public 27, laplace

-- the first letter of free text is selected
SELECT LEFT(diagnosis, 1) AS chapter, COUNT(*) FROM visits GROUP BY chapter;
-- = choice of keys: row rank, l1 20, keys selected, laplace
-- = count(*): row rank, l1 20, keys selected, laplace

-- COALESCE of a category
SELECT COALESCE(department, 'none') AS d, COUNT(*) FROM visits GROUP BY d;
-- = count(*): row rank, l1 20, keys public 13, laplace

-- part of a category
SELECT SUBSTR(department, 1, 4) AS d, COUNT(*) FROM visits GROUP BY d;
-- = count(*): row rank, l1 20, keys public 13, laplace

-- too many values to list are selected
SELECT ROUND(cost, 2) AS c, COUNT(*) FROM visits GROUP BY c;
-- = choice of keys: row rank, l1 20, keys selected, laplace
-- = count(*): row rank, l1 20, keys selected, laplace

-- a decade of birth
SELECT (birth_year // 10) * 10 AS decade, COUNT(*) FROM patients GROUP BY decade;
-- = count(*): one row per patient, l1 1, keys public 14, laplace

-- buckets of equal width
SELECT WIDTH_BUCKET(los, 0, 30, 3) AS band, COUNT(*) FROM visits GROUP BY 1;
-- = count(*): row rank, l1 20, keys public 5, laplace
-- plain: SELECT CASE WHEN los IS NULL THEN NULL WHEN los >= 30 THEN 4 ELSE los // 10 + 1 END AS band, COUNT(*) FROM visits GROUP BY 1

-- buckets that begin above the least value
SELECT WIDTH_BUCKET(cost, 100, 2000, 4) AS band, COUNT(*) FROM visits GROUP BY 1;
-- = count(*): row rank, l1 20, keys public 7, laplace
-- plain: SELECT CASE WHEN cost < 100 THEN 0 WHEN cost >= 2000 THEN 5 WHEN cost IS NOT NULL THEN CAST(FLOOR((cost - 100) / 475) AS INTEGER) + 1 END AS band, COUNT(*) FROM visits GROUP BY 1

-- whole numbers rounded to decimals stay whole
SELECT ROUND(los, 1) // 5 AS fives, COUNT(*) FROM visits GROUP BY fives;
-- = count(*): row rank, l1 20, keys public 14, laplace
