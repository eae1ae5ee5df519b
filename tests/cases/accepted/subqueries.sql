---- Accepted: subqueries. Name, statement, then for each noised column what bounds a patient.

-- patients in a list of patients
SELECT COUNT(*) FROM visits WHERE patient_id IN (SELECT patient_id FROM patients WHERE sex =
'F');
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- patients with a visit of a kind
SELECT COUNT(*) FROM patients p WHERE EXISTS (SELECT 1 FROM visits v WHERE v.patient_id =
p.patient_id AND v.department = 'surgery');
-- = count(*): one row per patient, l1 1, keys public 1, laplace

-- patients without one
SELECT COUNT(*) FROM patients p WHERE NOT EXISTS (SELECT 1 FROM visits v WHERE v.patient_id =
p.patient_id AND v.department = 'surgery');
-- = count(*): one row per patient, l1 1, keys public 1, laplace

-- visits with a lab value
SELECT COUNT(*) FROM visits v WHERE EXISTS (SELECT 1 FROM labs l WHERE l.visit_id = v.visit_id);
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- a released mean as a threshold
SELECT COUNT(*) FROM visits WHERE cost > (SELECT AVG(cost) FROM visits);
-- = sum(cost), part 1: row rank, l1 200000, keys public 1, laplace
-- = count, part 2: row rank, l1 20, keys public 1, laplace
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- a release joined to rows
SELECT COUNT(*) FROM visits v JOIN (SELECT department, AVG(cost) AS mean FROM visits GROUP BY
department) AS d ON v.department = d.department WHERE v.cost > d.mean;
-- = sum(cost), part 1: row rank, l1 200000, keys public 13, laplace
-- = count, part 2: row rank, l1 20, keys public 13, laplace
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- a list of released keys
SELECT COUNT(*) FROM visits WHERE department IN (SELECT department FROM visits GROUP BY
department HAVING COUNT(*) > 20);
-- = count, part 1: row rank, l1 20, keys public 13, laplace
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- EXISTS over released rows
SELECT COUNT(*) FROM visits v WHERE EXISTS (SELECT 1 FROM (SELECT department AS d, COUNT(*) AS n
FROM visits GROUP BY department) AS s WHERE s.d = v.department AND s.n > 20);
-- = count, part 1: row rank, l1 20, keys public 13, laplace
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- a public list
SELECT COUNT(*) FROM patients WHERE region IN (SELECT region FROM regions WHERE population >
500000);
-- = count(*): one row per patient, l1 1, keys public 1, laplace

-- EXISTS inside FILTER
SELECT COUNT(*) FILTER (WHERE EXISTS (SELECT 1 FROM labs l WHERE l.visit_id = v.visit_id AND
l.value > 100)) FROM visits v;
-- = count(*) filter(where exists(select 1 from labs as l where l.visit_id = v.visit_id and l.value > 100)): per-patient clip, l1 20, keys public 1, laplace
