---- Refused: joins. Name, statement, then the rule.

-- two patients in one row
SELECT COUNT(*) FROM patients a JOIN patients b ON a.region = b.region;
-- ! cross-patient-join

-- a cross join of patients
SELECT COUNT(*) FROM visits, labs;
-- ! cross-patient-join

-- a comma join without a key
SELECT COUNT(*) FROM visits v, patients p WHERE v.los > p.birth_year;
-- ! cross-patient-join

-- keys of different things
SELECT COUNT(*) FROM labs JOIN visits ON labs.lab_id = visits.visit_id;
-- ! key-comparison

-- a key and the patient
SELECT COUNT(*) FROM visits JOIN patients ON visits.visit_id = patients.patient_id;
-- ! key-comparison

-- an undeclared table
SELECT COUNT(*) FROM visits JOIN addresses USING (patient_id);
-- ! unknown-table

-- a full join
SELECT COUNT(*) FROM patients FULL JOIN visits USING (patient_id);
-- ! join-type

-- a public table on the outer side
SELECT COUNT(*) FROM regions LEFT JOIN patients USING (region);
-- ! outer-join

-- the same name twice
SELECT COUNT(*) FROM visits JOIN visits USING (patient_id);
-- ! ambiguous-table

-- a natural join
SELECT COUNT(*) FROM visits NATURAL JOIN patients;
-- ! unknown-clause

-- a lateral join
SELECT COUNT(*) FROM visits, LATERAL (SELECT 1);
-- ! from

-- an inequality of patients
SELECT COUNT(*) FROM visits a JOIN visits b ON a.patient_id < b.patient_id;
-- ! types

-- a key equality inside OR ties nothing
SELECT COUNT(*) FROM visits a JOIN visits b ON a.patient_id = b.patient_id OR a.los = b.los;
-- ! types

-- a semi join
SELECT COUNT(*) FROM visits SEMI JOIN patients USING (patient_id);
-- ! join-type

-- an as-of join
SELECT COUNT(*) FROM visits a ASOF JOIN visits b USING (patient_id, visit_date);
-- ! unknown-clause

-- RIGHT JOIN after a comma
SELECT COUNT(*) FROM visits a, visits b RIGHT JOIN patients p ON p.patient_id = b.patient_id
WHERE a.visit_id = b.visit_id;
-- ! join-type
