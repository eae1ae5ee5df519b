---- Accepted: unions. Name, statement, then for each noised column what bounds a patient.

-- rows of two tables with their patient
SELECT COUNT(*) FROM (SELECT patient_id FROM visits UNION ALL SELECT patient_id FROM patients)
AS t;
-- = count(*): row rank, l1 40, keys public 1, laplace

-- patients in two tables, each once
SELECT COUNT(DISTINCT patient_id) FROM (SELECT patient_id FROM visits WHERE los > 3 UNION ALL
SELECT patient_id FROM patients WHERE sex = 'F') AS t;
-- = count(distinct patient_id): per-patient clip, l1 1, keys public 1, laplace

-- values of two columns
SELECT k, COUNT(*) FROM (SELECT patient_id, department AS k FROM visits UNION ALL SELECT
patient_id, sex AS k FROM patients) AS t GROUP BY k;
-- = count(*): row rank, l1 40, keys public 15, laplace

-- the same table twice doubles its rows
SELECT SUM(los) FROM (SELECT patient_id, los FROM visits UNION ALL SELECT patient_id, los FROM
visits) AS t;
-- = sum(los): row rank, l1 2400, keys public 1, laplace

-- released rows one below the other
SELECT COUNT(*) AS n FROM visits UNION ALL SELECT COUNT(*) FROM labs ORDER BY n;
-- = count, part 1: row rank, l1 20, keys public 1, laplace
-- = count, part 1: row rank, l1 200, keys public 1, laplace
