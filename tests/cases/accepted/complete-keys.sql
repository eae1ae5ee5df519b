---- Accepted: complete keys. Name, statement, then for each noised column what bounds a patient.

-- every region, with or without patients
SELECT r.region, COUNT(p.patient_id) AS n FROM regions AS r LEFT JOIN patients AS p ON p.region =
r.region GROUP BY r.region;
-- = n: one row per patient, l1 1, keys public 8, laplace

-- every region, women only
SELECT r.region, r.population, COUNT(p.patient_id) AS n FROM regions AS r LEFT JOIN patients AS p
ON p.region = r.region AND p.sex = 'F' GROUP BY ALL;
-- = n: one row per patient, l1 1, keys public 8, laplace

-- every large region
SELECT r.name, AVG(p.birth_year) AS born FROM regions AS r LEFT JOIN patients AS p USING (region)
WHERE r.population > 300000 GROUP BY r.name;
-- = born.sum: one row per patient, l1 63, keys public 8, laplace
-- = born.count: one row per patient, l1 1, keys public 8, laplace

-- the same as a right join
SELECT r.region, COUNT(p.sex) AS n FROM patients AS p RIGHT JOIN regions AS r ON p.region =
r.region GROUP BY r.region;
-- = n: one row per patient, l1 1, keys public 8, laplace
