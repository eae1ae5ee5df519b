---- Accepted: per patient. Name, statement, then for each noised column what bounds a patient.

-- visits of a patient, averaged over patients
SELECT AVG(n) FROM (SELECT patient_id, COUNT(*) AS n FROM visits GROUP BY patient_id) AS t;
-- = avg(n).sum: one row per patient, l1 100, keys public 1, laplace
-- = avg(n).count: one row per patient, l1 1, keys public 1, laplace

-- how many patients have how many visits
SELECT n, COUNT(*) FROM (SELECT patient_id, COUNT(*) AS n FROM visits GROUP BY patient_id) AS t
GROUP BY n;
-- = count(*): one row per patient, l1 1, keys public 201, laplace

-- the dearest visit of each patient
SELECT AVG(top) FROM (SELECT patient_id, MAX(cost) AS top FROM visits GROUP BY patient_id) AS t;
-- = avg(top).sum: one row per patient, l1 10000, keys public 1, laplace
-- = avg(top).count: one row per patient, l1 1, keys public 1, laplace

-- patients with many visits
SELECT COUNT(*) FROM (SELECT patient_id FROM visits GROUP BY patient_id HAVING COUNT(*) > 10) AS
t;
-- = count(*): one row per patient, l1 1, keys public 1, laplace

-- the sum of a patient, clipped
SELECT AVG(CLAMP(total, 0, 50000)) FROM (SELECT patient_id, SUM(cost) AS total FROM visits GROUP
BY patient_id) AS t;
-- = avg(clamp(total, 0, 50000)).sum: one row per patient, l1 25000, keys public 1, laplace
-- = avg(clamp(total, 0, 50000)).count: one row per patient, l1 1, keys public 1, laplace

-- patient and department
SELECT department, AVG(n) FROM (SELECT patient_id, department, COUNT(*) AS n FROM visits GROUP
BY patient_id, department) AS t GROUP BY department;
-- = avg(n).sum: few rows per patient, l1 1300, keys public 13, laplace
-- = avg(n).count: few rows per patient, l1 13, keys public 13, laplace

-- a median within each patient
SELECT AVG(m) FROM (SELECT patient_id, MEDIAN(cost) AS m FROM visits GROUP BY patient_id) AS t;
-- = avg(m).sum: one row per patient, l1 10000, keys public 1, laplace
-- = avg(m).count: one row per patient, l1 1, keys public 1, laplace

-- a spread within each patient
SELECT AVG(s) FROM (SELECT patient_id, STDDEV_POP(los) AS s FROM visits GROUP BY patient_id) AS
t;
-- = avg(s).sum: one row per patient, l1 30, keys public 1, laplace
-- = avg(s).count: one row per patient, l1 1, keys public 1, laplace

-- distinct departments of a patient
SELECT AVG(n) FROM (SELECT patient_id, COUNT(DISTINCT department) AS n FROM visits GROUP BY
patient_id) AS t;
-- = avg(n).sum: one row per patient, l1 100, keys public 1, laplace
-- = avg(n).count: one row per patient, l1 1, keys public 1, laplace

-- distinct pairs of patient and department
SELECT department, COUNT(*) FROM (SELECT DISTINCT patient_id, department FROM visits) AS t GROUP
BY department;
-- = count(*): few rows per patient, l1 13, keys public 13, laplace

-- ever readmitted
SELECT ever, COUNT(*) FROM (SELECT patient_id, BOOL_OR(readmitted) AS ever FROM visits GROUP BY
patient_id) AS t GROUP BY ever;
-- = count(*): one row per patient, l1 1, keys public 3, laplace

-- per-patient numbers joined to the patient
SELECT sex, AVG(n) FROM patients JOIN (SELECT patient_id, COUNT(*) AS n FROM visits GROUP BY
patient_id) AS t USING (patient_id) GROUP BY sex;
-- = avg(n).sum: one row per patient, l1 100, keys public 3, laplace
-- = avg(n).count: one row per patient, l1 1, keys public 3, laplace

-- patients without visits count zero
SELECT AVG(COALESCE(n, 0)) FROM patients LEFT JOIN (SELECT patient_id, COUNT(*) AS n FROM visits
GROUP BY patient_id) AS t USING (patient_id);
-- = avg(coalesce(n, 0)).sum: one row per patient, l1 100, keys public 1, laplace
-- = avg(coalesce(n, 0)).count: one row per patient, l1 1, keys public 1, laplace
