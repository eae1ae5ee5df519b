---- Accepted: left joins. Name, statement, then for each noised column what bounds a patient.

-- patients without visits count
SELECT COUNT(*) FROM patients LEFT JOIN visits USING (patient_id);
-- = count(*): row rank, l1 20, keys public 1, laplace

-- the optional side is NULL where nothing matched
SELECT COUNT(v.visit_id) FROM patients p LEFT JOIN visits v ON p.patient_id = v.patient_id AND
v.department = 'surgery';
-- = count(v.visit_id): row rank, l1 20, keys public 1, laplace

-- patients without a visit
SELECT COUNT(*) FROM patients p LEFT JOIN visits v USING (patient_id) WHERE v.visit_id IS NULL;
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- a condition can split a patient's rows: his own key has two values then
SELECT p.sex, COUNT(DISTINCT v.patient_id) FROM visits v LEFT JOIN patients p ON v.patient_id =
p.patient_id AND v.cost > 500 GROUP BY p.sex;
-- = count(distinct v.patient_id): per-patient clip, l1 3, keys public 3, laplace

-- without one his key has one value
SELECT p.sex, COUNT(DISTINCT v.patient_id) FROM visits v LEFT JOIN patients p ON v.patient_id =
p.patient_id GROUP BY p.sex;
-- = count(distinct v.patient_id): per-patient clip, l1 1, keys public 3, laplace

-- visits with or without labs
SELECT COUNT(*) FROM visits LEFT JOIN labs USING (visit_id);
-- = count(*): per-patient clip, l1 200, keys public 1, laplace

-- sum over an optional side
SELECT SUM(v.cost) FROM patients p LEFT JOIN visits v ON p.patient_id = v.patient_id;
-- = sum(v.cost): row rank, l1 400000, keys public 1, laplace

-- labs left joined to their visit
SELECT department, COUNT(*) FROM labs LEFT JOIN visits USING (visit_id) GROUP BY department;
-- = count(*): row rank, l1 200, keys public 13, laplace

-- an optional derived table
SELECT COUNT(s.twice) FROM patients p LEFT JOIN (SELECT patient_id, cost * 2 AS twice FROM
visits WHERE los > 3) s ON p.patient_id = s.patient_id;
-- = count(s.twice): row rank, l1 20, keys public 1, laplace

-- a null-safe condition in ON
SELECT COUNT(*) FROM patients p LEFT JOIN visits v ON p.patient_id = v.patient_id AND
v.readmitted IS NOT DISTINCT FROM (v.los > 3);
-- = count(*): row rank, l1 20, keys public 1, laplace
