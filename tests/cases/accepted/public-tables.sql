---- Accepted: public tables. Name, statement, then for each noised column what bounds a patient.

-- a public table alone is free
SELECT COUNT(*), SUM(population) FROM regions;
-- = free

-- rows of a public table
SELECT region, population FROM regions ORDER BY population DESC LIMIT 2;
-- = free

-- a public table beside patients
SELECT name, COUNT(*) FROM patients JOIN regions ON patients.region = regions.region GROUP BY
name;
-- = count(*): one row per patient, l1 1, keys public 8, laplace

-- a sum of a public number over patients
SELECT SUM(population) FROM patients JOIN regions USING (region);
-- = sum(population): one row per patient, l1 1.2e+06, keys public 1, laplace

-- patients LEFT JOIN public
SELECT r.region, COUNT(*) FROM patients p LEFT JOIN regions r ON p.region = r.region GROUP BY
r.region;
-- = count(*): one row per patient, l1 1, keys public 9, laplace

-- visits, patients and regions
SELECT r.name, AVG(v.cost) FROM visits v JOIN patients p USING (patient_id) JOIN regions r ON
p.region = r.region GROUP BY r.name;
-- = avg(v.cost).sum: row rank, l1 200000, keys public 8, laplace
-- = avg(v.cost).count: row rank, l1 20, keys public 8, laplace

-- a public table crossed with patients multiplies rows: a per-patient clip
SELECT COUNT(*) FROM patients p JOIN regions r ON p.birth_year < r.population;
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- a constant alone
SELECT 1 + 1;
-- = free
