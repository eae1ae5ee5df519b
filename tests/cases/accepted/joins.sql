---- Accepted: joins. Name, statement, then for each noised column what bounds a patient.

-- visits and their patients
SELECT COUNT(*) FROM visits JOIN patients USING (patient_id);
-- = count(*): row rank, l1 20, keys public 1, laplace

-- ON instead of USING
SELECT COUNT(*) FROM visits v JOIN patients p ON v.patient_id = p.patient_id;
-- = count(*): row rank, l1 20, keys public 1, laplace

-- a comma and WHERE
SELECT COUNT(*) FROM visits v, patients p WHERE v.patient_id = p.patient_id AND p.sex = 'F';
-- = count(*): row rank, l1 20, keys public 1, laplace

-- labs and their visits, driven by labs
SELECT COUNT(*) FROM labs JOIN visits USING (visit_id);
-- = count(*): row rank, l1 200, keys public 1, laplace

-- labs by the department of the visit
SELECT department, AVG(value) FROM labs JOIN visits ON labs.visit_id = visits.visit_id GROUP BY
department;
-- = avg(value).sum: row rank, l1 50000, keys public 13, laplace
-- = avg(value).count: row rank, l1 200, keys public 13, laplace

-- three tables
SELECT sex, SUM(value) FROM labs JOIN visits USING (visit_id) JOIN patients USING (patient_id)
GROUP BY sex;
-- = sum(value): row rank, l1 100000, keys public 3, laplace

-- two visits of one patient: a per-patient clip
SELECT COUNT(*) FROM visits a JOIN visits b ON a.patient_id = b.patient_id WHERE a.department =
'surgery' AND b.department = 'urology';
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- a visit with itself by its key
SELECT COUNT(*) FROM visits a JOIN visits b ON a.visit_id = b.visit_id;
-- = count(*): row rank, l1 20, keys public 1, laplace

-- patients in a self-join, each once
SELECT COUNT(DISTINCT a.patient_id) FROM visits a JOIN visits b USING (patient_id) WHERE a.los >
b.los;
-- = count(distinct a.patient_id): per-patient clip, l1 1, keys public 1, laplace

-- a join with more conditions
SELECT COUNT(*) FROM visits v JOIN patients p ON v.patient_id = p.patient_id AND v.los > 3 AND
p.sex = 'M';
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- RIGHT JOIN is LEFT JOIN from the other side
SELECT sex, COUNT(visit_id) FROM visits RIGHT JOIN patients USING (patient_id) GROUP BY sex;
-- = count(visit_id): row rank, l1 20, keys public 3, laplace

-- the merged column of a RIGHT JOIN
SELECT COUNT(patient_id) FROM visits RIGHT JOIN patients USING (patient_id);
-- = count(patient_id): row rank, l1 20, keys public 1, laplace
