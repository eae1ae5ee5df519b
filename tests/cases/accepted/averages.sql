---- Accepted: averages. Name, statement, then for each noised column what bounds a patient.

-- an average is a sum and a count
SELECT AVG(cost) FROM visits;
-- = avg(cost).sum: row rank, l1 200000, keys public 1, laplace
-- = avg(cost).count: row rank, l1 20, keys public 1, laplace

-- an average by group
SELECT department, AVG(cost) FROM visits GROUP BY department;
-- = avg(cost).sum: row rank, l1 200000, keys public 13, laplace
-- = avg(cost).count: row rank, l1 20, keys public 13, laplace

-- an average beside its count shares the count
SELECT AVG(cost), COUNT(cost) FROM visits;
-- = avg(cost).sum: row rank, l1 200000, keys public 1, laplace
-- = avg(cost).count: row rank, l1 20, keys public 1, laplace

-- an average with FILTER
SELECT AVG(los) FILTER (WHERE readmitted) FROM visits;
-- = avg(los) filter(where readmitted).sum: norm scaling, l1 600, keys public 1, laplace
-- = avg(los) filter(where readmitted).count: norm scaling, l1 20, keys public 1, laplace

-- an average over patients
SELECT AVG(birth_year) FROM patients;
-- = avg(birth_year).sum: one row per patient, l1 63, keys public 1, laplace
-- = avg(birth_year).count: one row per patient, l1 1, keys public 1, laplace

-- an average of an expression
SELECT AVG(cost / 1000) FROM visits;
-- = avg(cost / 1000).sum: row rank, l1 200, keys public 1, laplace
-- = avg(cost / 1000).count: row rank, l1 20, keys public 1, laplace

-- an average of equal bounds
SELECT AVG(CLAMP(los, 7, 7)) FROM visits WHERE los IS NOT NULL;
-- = avg(clamp(los, 7, 7)).sum: row rank, l1 0, keys public 1, none
-- = avg(clamp(los, 7, 7)).count: row rank, l1 20, keys public 1, laplace

-- share of a truth value
SELECT AVG(readmitted) FROM visits;
-- = avg(readmitted).sum: row rank, l1 10, keys public 1, laplace
-- = avg(readmitted).count: row rank, l1 20, keys public 1, laplace
-- plain: SELECT AVG(CAST(readmitted AS INTEGER)) FROM visits

-- two averages by two keys
SELECT sex, readmitted, AVG(cost) AS c, AVG(los) AS l FROM visits JOIN patients USING
(patient_id) GROUP BY sex, readmitted;
-- = c.sum: row rank, l1 200000, keys public 9, laplace
-- = c.count: row rank, l1 20, keys public 9, laplace
-- = l.sum: row rank, l1 600, keys public 9, laplace
-- = l.count: row rank, l1 20, keys public 9, laplace
