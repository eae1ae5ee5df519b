---- Refused: subqueries. Name, statement, then the rule.

-- EXISTS in the SELECT list
SELECT EXISTS (SELECT 1 FROM patients WHERE region = 'north');
-- ! subquery

-- IN a subquery in the SELECT list
SELECT 'north' IN (SELECT region FROM patients GROUP BY 1);
-- ! subquery

-- VALUES in FROM
SELECT COUNT(*) FROM (VALUES (1)) AS t(x);
-- ! from

-- recursion
WITH RECURSIVE r AS (SELECT 1 AS x) SELECT COUNT(*) FROM r;
-- ! unknown-clause

-- LIMIT below a release
SELECT COUNT(*) FROM (SELECT cost FROM visits ORDER BY cost DESC LIMIT 1) AS t;
-- ! limit-below-release

-- a window over rows
SELECT SUM(cost) OVER () FROM visits;
-- ! window-across-patients

-- QUALIFY across patients
SELECT patient_id FROM visits QUALIFY ROW_NUMBER() OVER (ORDER BY cost) = 1;
-- ! window-across-patients

-- a window across patients
SELECT COUNT(*) FROM (SELECT RANK() OVER (ORDER BY cost) AS r FROM visits) AS t WHERE r = 1;
-- ! window-across-patients

-- a window by department across patients
SELECT COUNT(*) FROM (SELECT RANK() OVER (PARTITION BY department ORDER BY cost) AS r FROM
visits) AS t WHERE r = 1;
-- ! window-across-patients

-- a window ordered by a key
SELECT COUNT(*) FROM (SELECT ROW_NUMBER() OVER (PARTITION BY patient_id ORDER BY visit_id) AS r
FROM visits) AS t WHERE r = 1;
-- ! key-output

-- EXISTS without the patient
SELECT COUNT(*) FROM visits v WHERE EXISTS (SELECT 1 FROM visits w WHERE w.department =
v.department AND w.cost > v.cost);
-- ! cross-patient-subquery

-- IN another patient's values
SELECT COUNT(*) FROM visits WHERE department IN (SELECT department FROM visits WHERE cost >
1000);
-- ! cross-patient-subquery

-- EXISTS on released rows reads patients for nobody
SELECT * FROM (SELECT department, COUNT(*) AS n FROM visits GROUP BY department) AS t WHERE
EXISTS (SELECT 1 FROM visits v WHERE v.department = t.department);
-- ! subquery

-- a scalar subquery tied to the row
SELECT COUNT(*) FROM visits v WHERE cost > (SELECT AVG(w.cost) FROM visits w WHERE w.patient_id
= v.patient_id);
-- ! unknown-table

-- HAVING EXISTS
SELECT department, COUNT(*) FROM visits v GROUP BY department HAVING EXISTS (SELECT 1 FROM labs
l WHERE l.visit_id = v.visit_id);
-- ! bare-column

-- UNION of patients' rows drops repeats across patients
SELECT COUNT(*) FROM (SELECT patient_id FROM visits UNION SELECT patient_id FROM patients) AS t;
-- ! set-operation

-- UNION of rows and released rows
SELECT COUNT(*) FROM (SELECT department FROM visits UNION ALL SELECT department FROM visits
GROUP BY department) AS t;
-- ! set-operation

-- INTERSECT
SELECT COUNT(*) FROM (SELECT patient_id FROM visits INTERSECT SELECT patient_id FROM patients)
AS t;
-- ! set-operation

-- EXCEPT
SELECT patient_id FROM patients EXCEPT SELECT patient_id FROM visits;
-- ! set-operation

-- one row for each patient
SELECT patient_id, MAX(cost) FROM visits GROUP BY patient_id;
-- ! group-by-patient

-- LIMIT over patients
SELECT COUNT(*) FROM (SELECT patient_id, SUM(cost) AS s FROM visits GROUP BY patient_id ORDER BY
s DESC LIMIT 1) AS t;
-- ! limit-below-release

-- a window with RANGE
SELECT COUNT(*) FROM (SELECT SUM(los) OVER (PARTITION BY patient_id ORDER BY los RANGE BETWEEN 5
PRECEDING AND CURRENT ROW) AS s FROM visits) AS t;
-- ! window
