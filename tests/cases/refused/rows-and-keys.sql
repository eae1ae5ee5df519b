---- Refused: rows and keys. Name, statement, then the rule.

-- rows are never shown
SELECT age FROM (SELECT birth_year AS age FROM patients) AS t;
-- ! bare-rows

-- a star shows rows
SELECT * FROM patients;
-- ! bare-rows

-- rows behind a filter
SELECT cost FROM visits WHERE cost > 19000;
-- ! bare-rows

-- a column beside an aggregate
SELECT department, AVG(cost) FROM visits;
-- ! bare-column

-- one group for each patient
SELECT patient_id, COUNT(*) FROM visits GROUP BY patient_id;
-- ! group-by-patient

-- one group for each row
SELECT visit_id, COUNT(*) FROM visits GROUP BY visit_id;
-- ! key-output

-- distinct patients
SELECT DISTINCT patient_id FROM visits;
-- ! group-by-patient

-- distinct rows
SELECT DISTINCT visit_id FROM visits;
-- ! key-output

-- a key compared with a number
SELECT COUNT(*) FROM visits WHERE visit_id = 4711;
-- ! types

-- a patient compared with a number
SELECT COUNT(*) FROM visits WHERE patient_id = 1000;
-- ! types

-- arithmetic on the patient
SELECT COUNT(DISTINCT m) FROM (SELECT patient_id + 1 AS m FROM visits) AS t;
-- ! types

-- a cast of the patient
SELECT COUNT(*) FROM visits WHERE CAST(patient_id AS VARCHAR) LIKE '1%';
-- ! types

-- patients picked by a list
SELECT COUNT(*) FROM visits WHERE patient_id IN (1000, 1003);
-- ! types

-- patients picked by a range
SELECT COUNT(*) FROM visits WHERE patient_id BETWEEN 1000 AND 1003;
-- ! types

-- a key as text
SELECT COUNT(DISTINCT visit_id || '') FROM visits;
-- ! types

-- COALESCE on the patient
SELECT COUNT(DISTINCT COALESCE(patient_id, 0)) FROM visits;
-- ! types

-- a group by the patient through an alias
SELECT p AS k, COUNT(*) FROM (SELECT patient_id AS p FROM visits) AS t GROUP BY k;
-- ! group-by-patient

-- engine columns
SELECT COUNT(*) FROM visits WHERE __rank < 2;
-- ! unknown-column

-- the unit number
SELECT COUNT(*) FROM visits WHERE __u = 1;
-- ! unknown-column
