---- Accepted: dates. Name, statement, then for each noised column what bounds a patient.

-- by year
SELECT YEAR(visit_date) AS y, COUNT(*) FROM visits GROUP BY y;
-- = count(*): row rank, l1 20, keys public 13, laplace

-- EXTRACT keeps its part
SELECT EXTRACT(year FROM visit_date) AS y, COUNT(*) FROM visits GROUP BY y;
-- = count(*): row rank, l1 20, keys public 13, laplace

-- by month
SELECT DATE_TRUNC('month', visit_date) AS m, COUNT(*) FROM visits WHERE visit_date >= DATE
'2025-01-01' GROUP BY m;
-- = count(*): norm scaling, l1 20, keys public 24, laplace

-- by quarter of the year
SELECT QUARTER(visit_date) AS q, COUNT(*) FROM visits GROUP BY q;
-- = count(*): row rank, l1 20, keys public 5, laplace

-- by day of the week
SELECT DAYOFWEEK(visit_date) AS d, COUNT(*) FROM visits GROUP BY d;
-- = count(*): row rank, l1 20, keys public 8, laplace

-- by week
SELECT WEEK(visit_date) AS w, COUNT(*) FROM visits GROUP BY w;
-- = count(*): row rank, l1 20, keys public 54, laplace

-- a range of dates as text
SELECT COUNT(*) FROM visits WHERE visit_date BETWEEN '2020-01-01' AND '2020-12-31';
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- a shifted date
SELECT COUNT(*) FROM visits WHERE visit_date + INTERVAL 1 YEAR > DATE '2024-02-29';
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- days between
SELECT AVG(DATE_DIFF('day', visit_date, DATE '2026-12-31')) FROM visits;
-- = avg(date_diff('day', visit_date, cast('2026-12-31' as date))).sum: row rank, l1 43840, keys public 1, laplace
-- = avg(date_diff('day', visit_date, cast('2026-12-31' as date))).count: row rank, l1 20, keys public 1, laplace

-- days by subtraction
SELECT SUM(DATE '2026-12-31' - visit_date) FROM visits;
-- = sum(cast('2026-12-31' as date) - visit_date): row rank, l1 87660, keys public 1, laplace

-- date plus days
SELECT COUNT(*) FROM visits WHERE visit_date + 30 < DATE '2020-03-01';
-- = count(*): per-patient clip, l1 20, keys public 1, laplace

-- a date as key
SELECT visit_date, COUNT(*) FROM visits WHERE visit_date >= DATE '2026-12-01' GROUP BY
visit_date;
-- = count(*): norm scaling, l1 20, keys public 31, laplace
