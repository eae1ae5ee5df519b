---- What epidemiologists ask of the OMOP model: name, then the statement. Ulcer is 4027663,
---- gastrointestinal hemorrhage 192671, sinusitis 40481087, pharyngitis 4112343, bronchitis 260139.

-- how many patients
SELECT COUNT(*) FROM person;

-- patients by sex and decade of birth
SELECT gender_source_value AS sex, year_of_birth // 10 * 10 AS decade, COUNT(*) FROM person
GROUP BY 1, 2;

-- prevalence of a condition
SELECT 100.0 * COUNT(DISTINCT o.person_id) / COUNT(DISTINCT p.person_id) AS percent
FROM person p LEFT JOIN condition_occurrence o
  ON o.person_id = p.person_id AND o.condition_concept_id = 4027663;

-- prevalence by sex
SELECT p.gender_source_value AS sex,
       COUNT(DISTINCT o.person_id) * 1.0 / COUNT(DISTINCT p.person_id) AS share
FROM person p LEFT JOIN condition_occurrence o
  ON o.person_id = p.person_id AND o.condition_concept_id = 40481087
GROUP BY 1;

-- prevalence by age at a date
SELECT CASE WHEN 2010 - year_of_birth < 18 THEN 'child' WHEN 2010 - year_of_birth < 65 THEN 'adult'
            ELSE 'older' END AS age, COUNT(*) AS patients,
       COUNT(*) FILTER (WHERE EXISTS (SELECT 1 FROM condition_occurrence o
                                      WHERE o.person_id = p.person_id
                                        AND o.condition_concept_id = 4112343)) AS cases
FROM person p GROUP BY 1;

-- new cases by year
WITH first AS (
  SELECT person_id, MIN(condition_start_date) AS since FROM condition_occurrence
  WHERE condition_concept_id = 40481087 GROUP BY person_id
)
SELECT YEAR(since) AS year, COUNT(*) FROM first GROUP BY 1;

-- new cases within a period, by sex
WITH first AS (
  SELECT person_id, MIN(condition_start_date) AS since FROM condition_occurrence
  WHERE condition_concept_id = 260139 GROUP BY person_id
)
SELECT p.gender_source_value AS sex, COUNT(*) FROM first f JOIN person p USING (person_id)
WHERE since BETWEEN '1990-01-01' AND '1999-12-31' GROUP BY 1;

-- incidence per 1,000 patients born before a year
WITH first AS (
  SELECT person_id, MIN(condition_start_date) AS since FROM condition_occurrence
  WHERE condition_concept_id = 4112343 GROUP BY person_id
)
SELECT 1000.0 * COUNT(f.person_id) / COUNT(*) AS per_thousand
FROM person p LEFT JOIN first f ON f.person_id = p.person_id AND YEAR(f.since) >= 1980
WHERE p.year_of_birth < 1980;

-- a cohort with two inclusion rules
SELECT COUNT(*) FROM person p
WHERE p.year_of_birth <= 1960
  AND EXISTS (SELECT 1 FROM drug_exposure d WHERE d.person_id = p.person_id
              AND d.drug_concept_id = 1118084)
  AND NOT EXISTS (SELECT 1 FROM condition_occurrence o WHERE o.person_id = p.person_id
                  AND o.condition_concept_id = 192671);

-- a cohort by order of events
WITH drug AS (
  SELECT person_id, MIN(drug_exposure_start_date) AS since FROM drug_exposure
  WHERE drug_concept_id = 1118084 GROUP BY person_id
), bleed AS (
  SELECT person_id, MIN(condition_start_date) AS since FROM condition_occurrence
  WHERE condition_concept_id = 192671 GROUP BY person_id
)
SELECT COUNT(*) AS exposed, COUNT(*) FILTER (WHERE b.since >= d.since) AS bled_after
FROM drug d LEFT JOIN bleed b ON b.person_id = d.person_id;

-- attrition of a cohort, step by step
SELECT COUNT(*) AS everybody, COUNT(*) FILTER (WHERE year_of_birth < 1970) AS older,
       COUNT(*) FILTER (WHERE year_of_birth < 1970 AND gender_concept_id = 8532) AS older_women
FROM person;

-- patients of a drug, by name
SELECT c.concept_name AS drug, COUNT(DISTINCT d.person_id) FROM drug_exposure d
JOIN concept c ON c.concept_id = d.drug_concept_id
WHERE c.concept_name IN ('celecoxib', 'Diclofenac') GROUP BY 1;

-- the ten most common drugs
SELECT c.concept_name AS drug, COUNT(DISTINCT d.person_id) AS patients FROM drug_exposure d
JOIN concept c ON c.concept_id = d.drug_concept_id GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10;

-- drugs of a class, by the public hierarchy
SELECT COUNT(DISTINCT person_id) FROM drug_exposure
WHERE drug_concept_id IN (SELECT descendant_concept_id FROM concept_ancestor
                          WHERE ancestor_concept_id = 21603933);

-- days of supply by sex
SELECT p.gender_source_value AS sex, SUM(CLAMP(d.days_supply, 0, 90)) AS days,
       AVG(CLAMP(d.days_supply, 0, 90)) AS mean
FROM drug_exposure d JOIN person p USING (person_id) GROUP BY 1;

-- distribution of days of supply
SELECT QUANTILE_CONT(days_supply, 0.25) AS q1, MEDIAN(days_supply) AS q2,
       QUANTILE_CONT(days_supply, 0.75) AS q3 FROM drug_exposure;

-- bands of days of supply
SELECT CASE WHEN days_supply = 0 THEN 'none' WHEN days_supply <= 14 THEN 'two weeks'
            WHEN days_supply <= 30 THEN 'a month' ELSE 'more' END AS supply, COUNT(*)
FROM drug_exposure GROUP BY 1;

-- length of drug eras
SELECT AVG(days), MEDIAN(days) FROM (
  SELECT DATE_DIFF('day', drug_era_start_date, drug_era_end_date) AS days FROM drug_era
) AS eras WHERE days BETWEEN 0 AND 365;

-- eras per patient
SELECT eras, COUNT(*) AS patients FROM (
  SELECT person_id, LEAST(COUNT(*), 20) AS eras FROM drug_era GROUP BY person_id
) AS t GROUP BY 1;

-- eras built from exposures: a gap of more than 30 days begins a new one
WITH steps AS (
  SELECT person_id, drug_exposure_start_date AS start,
         LAG(drug_exposure_end_date) OVER (PARTITION BY person_id, drug_concept_id
                                           ORDER BY drug_exposure_start_date, drug_exposure_end_date) AS before
  FROM drug_exposure
)
SELECT COUNT(*) FROM steps WHERE before IS NULL OR DATE_DIFF('day', before, start) > 30;

-- number of different drugs a patient takes
SELECT AVG(drugs), MEDIAN(drugs) FROM (
  SELECT person_id, COUNT(DISTINCT drug_concept_id) AS drugs FROM drug_exposure GROUP BY person_id
) AS t;

-- polypharmacy by sex
SELECT p.gender_source_value AS sex, AVG(CASE WHEN t.drugs >= 5 THEN 1 ELSE 0 END) AS share
FROM (SELECT person_id, COUNT(DISTINCT drug_concept_id) AS drugs FROM drug_exposure
      GROUP BY person_id) AS t
JOIN person p USING (person_id) GROUP BY 1;

-- refills
SELECT refills, COUNT(*) FROM drug_exposure GROUP BY 1;

-- visits per patient
SELECT COUNT(v.visit_occurrence_id) * 1.0 / COUNT(DISTINCT p.person_id) AS visits
FROM person p LEFT JOIN visit_occurrence v ON v.person_id = p.person_id;

-- visits by kind and year
SELECT visit_concept_id AS kind, YEAR(visit_start_date) AS year, COUNT(*) FROM visit_occurrence
WHERE visit_start_date >= '1990-01-01' GROUP BY 1, 2;

-- length of stay
SELECT AVG(days) AS mean, MAX(days) AS longest FROM (
  SELECT CLAMP(DATE_DIFF('day', visit_start_date, visit_end_date), 0, 60) AS days
  FROM visit_occurrence
) AS stays;

-- length of stay by kind of visit
SELECT visit_concept_id AS kind,
       AVG(CLAMP(DATE_DIFF('day', visit_start_date, visit_end_date), 0, 60)) AS days
FROM visit_occurrence GROUP BY 1;

-- visits again within 30 days
WITH stays AS (
  SELECT person_id, visit_start_date,
         LAG(visit_end_date) OVER (PARTITION BY person_id ORDER BY visit_start_date, visit_end_date) AS before
  FROM visit_occurrence
)
SELECT COUNT(*) AS stays,
       COUNT(*) FILTER (WHERE DATE_DIFF('day', before, visit_start_date) <= 30) AS again
FROM stays;

-- patients with a visit again within a year, by sex
WITH stays AS (
  SELECT person_id, visit_start_date,
         LEAD(visit_start_date) OVER (PARTITION BY person_id ORDER BY visit_start_date, visit_end_date) AS next
  FROM visit_occurrence
)
SELECT p.gender_source_value AS sex, COUNT(DISTINCT s.person_id) FROM stays s
JOIN person p USING (person_id)
WHERE DATE_DIFF('day', visit_start_date, next) <= 365 GROUP BY 1;

-- days between two events
WITH first AS (
  SELECT person_id, MIN(condition_start_date) AS since FROM condition_occurrence
  WHERE condition_concept_id = 40481087 GROUP BY person_id
), second AS (
  SELECT person_id, MIN(condition_start_date) AS since FROM condition_occurrence
  WHERE condition_concept_id = 4112343 GROUP BY person_id
)
SELECT MEDIAN(CLAMP(DATE_DIFF('day', a.since, b.since), 0, 10000)) AS days
FROM first a JOIN second b USING (person_id) WHERE b.since >= a.since;

-- days from birth to a first condition
SELECT AVG(age) FROM (
  SELECT p.person_id, YEAR(MIN(o.condition_start_date)) - MIN(p.year_of_birth) AS age
  FROM person p JOIN condition_occurrence o USING (person_id)
  WHERE o.condition_concept_id = 4112343 GROUP BY p.person_id
) AS t;

-- distribution of a measurement
SELECT COUNT(*), AVG(CLAMP(value_as_number, 0, 300)), MEDIAN(CLAMP(value_as_number, 0, 300))
FROM measurement WHERE measurement_concept_id = 3036277;
-- plain: SELECT COUNT(*), AVG(CLAMP(CAST(value_as_number AS DOUBLE), 0, 300)), MEDIAN(CLAMP(CAST(value_as_number AS DOUBLE), 0, 300)) FROM measurement WHERE measurement_concept_id = 3036277

-- the last measurement of each patient
SELECT AVG(CLAMP(value_as_number, 0, 300)) FROM (
  SELECT person_id, value_as_number, ROW_NUMBER() OVER (
    PARTITION BY person_id ORDER BY measurement_date DESC, value_as_number) AS back
  FROM measurement WHERE value_as_number IS NOT NULL
) AS t WHERE back = 1;
-- plain: SELECT AVG(CLAMP(x, 0, 300)) FROM (SELECT TRY_CAST(value_as_number AS DOUBLE) AS x, ROW_NUMBER() OVER (PARTITION BY person_id ORDER BY measurement_date DESC, TRY_CAST(value_as_number AS DOUBLE)) AS back FROM measurement WHERE TRY_CAST(value_as_number AS DOUBLE) IS NOT NULL) AS t WHERE back = 1

-- measurements per patient
SELECT LEAST(tests, 50) AS tests, COUNT(*) FROM (
  SELECT person_id, COUNT(*) AS tests FROM measurement GROUP BY person_id
) AS t GROUP BY 1;

-- measurements by month of year
SELECT MONTH(measurement_date) AS month, COUNT(DISTINCT person_id) FROM measurement GROUP BY 1;

-- pairs of conditions
SELECT COUNT(*) FROM person p
WHERE EXISTS (SELECT 1 FROM condition_occurrence o WHERE o.person_id = p.person_id
              AND o.condition_concept_id = 40481087)
  AND EXISTS (SELECT 1 FROM condition_occurrence o WHERE o.person_id = p.person_id
              AND o.condition_concept_id = 4112343);

-- comorbidity table of three conditions
WITH has AS (
  SELECT person_id, MAX(CASE WHEN condition_concept_id = 40481087 THEN 1 ELSE 0 END) AS sinus,
         MAX(CASE WHEN condition_concept_id = 260139 THEN 1 ELSE 0 END) AS bronchi,
         MAX(CASE WHEN condition_concept_id = 192671 THEN 1 ELSE 0 END) AS bleeding
  FROM condition_occurrence GROUP BY person_id
)
SELECT sinus, bronchi, bleeding, COUNT(*) FROM has GROUP BY 1, 2, 3;

-- conditions that occur with another
SELECT c.concept_name AS other, COUNT(DISTINCT o.person_id) AS patients
FROM condition_occurrence o JOIN concept c ON c.concept_id = o.condition_concept_id
WHERE o.person_id IN (SELECT person_id FROM condition_occurrence
                      WHERE condition_concept_id = 192671)
GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 5;

-- conditions per patient
SELECT AVG(n), QUANTILE_CONT(n, 0.9) FROM (
  SELECT person_id, COUNT(DISTINCT condition_concept_id) AS n FROM condition_occurrence
  GROUP BY person_id
) AS t;

-- length of condition eras
SELECT MEDIAN(CLAMP(DATE_DIFF('day', condition_era_start_date, condition_era_end_date), 0, 365))
FROM condition_era;

-- conditions still open
SELECT condition_end_date IS NULL AS open, COUNT(*) FROM condition_occurrence GROUP BY 1;

-- conditions that begin in a visit
SELECT COUNT(*) FROM condition_occurrence o JOIN visit_occurrence v USING (visit_occurrence_id)
WHERE v.visit_concept_id = 9201;

-- procedures by year
SELECT YEAR(procedure_date) AS year, COUNT(*) FROM procedure_occurrence
WHERE procedure_date BETWEEN '2000-01-01' AND '2009-12-31' GROUP BY 1;

-- procedures and drugs of one patient together
SELECT kind, COUNT(*) FROM (
  SELECT person_id, 'drug' AS kind FROM drug_exposure
  UNION ALL SELECT person_id, 'procedure' FROM procedure_occurrence
) AS t GROUP BY 1;

-- share of patients with a drug, of those with a condition
SELECT AVG(CASE WHEN EXISTS (SELECT 1 FROM drug_exposure d WHERE d.person_id = p.person_id
                             AND d.drug_concept_id = 1118084) THEN 1 ELSE 0 END) AS share
FROM person p
WHERE p.person_id IN (SELECT person_id FROM condition_occurrence
                      WHERE condition_concept_id = 4112343);

-- observation time per patient
SELECT AVG(CLAMP(DATE_DIFF('day', observation_period_start_date, observation_period_end_date),
                 0, 40000)) FROM observation_period JOIN person USING (person_id);

-- observations with a value
SELECT observation_concept_id AS what, COUNT(*) FROM observation WHERE value_as_number IS NOT NULL
GROUP BY 1 HAVING COUNT(*) > 0;

-- mean age at visits, by sex, over totals
SELECT p.gender_source_value AS sex, AVG(YEAR(v.visit_start_date) - p.year_of_birth) AS age
FROM visit_occurrence v JOIN person p USING (person_id) GROUP BY ROLLUP (1);

-- visits of patients above the mean year of birth
SELECT COUNT(*) FROM visit_occurrence v JOIN person p USING (person_id)
WHERE p.year_of_birth > (SELECT AVG(year_of_birth) FROM person);

-- each race's share of all patients
SELECT race_source_value AS race, COUNT(*) * 1.0 / SUM(COUNT(*)) OVER () AS share FROM person
GROUP BY 1;

-- the least common of the common conditions
WITH counts AS (
  SELECT condition_concept_id AS id, COUNT(DISTINCT person_id) AS n FROM condition_occurrence
  GROUP BY 1
)
SELECT c.concept_name, counts.n FROM counts JOIN concept c ON c.concept_id = counts.id
WHERE counts.n >= 50 ORDER BY counts.n, c.concept_name LIMIT 3;

-- spread and trend of ages at a condition
SELECT STDDEV(age), CORR(age, born) FROM (
  SELECT p.person_id, MIN(p.year_of_birth) AS born,
         CLAMP(YEAR(MIN(o.condition_start_date)) - MIN(p.year_of_birth), 0, 110) AS age
  FROM person p JOIN condition_occurrence o USING (person_id)
  WHERE o.condition_concept_id = 260139 GROUP BY p.person_id
) AS t;
