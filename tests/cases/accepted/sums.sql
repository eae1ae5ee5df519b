---- Accepted: sums. Name, statement, then for each noised column what bounds a patient.

-- a bounded sum
SELECT SUM(cost) FROM visits;
-- = sum(cost): row rank, l1 400000, keys public 1, laplace

-- a sum of whole numbers
SELECT SUM(los) FROM visits;
-- = sum(los): row rank, l1 1200, keys public 1, laplace

-- a sum by group
SELECT department, SUM(cost) FROM visits GROUP BY department;
-- = sum(cost): row rank, l1 400000, keys public 13, laplace

-- bounds travel through arithmetic
SELECT SUM(2 * cost + 10) FROM visits;
-- = sum(2 * cost + 10): row rank, l1 800200, keys public 1, laplace

-- bounds that cross zero
SELECT SUM(los - 30) FROM visits;
-- = sum(los - 30): row rank, l1 600, keys public 1, laplace

-- a product of columns
SELECT SUM(cost * los) FROM visits;
-- = sum(cost * los): row rank, l1 2.4e+07, keys public 1, laplace

-- CLAMP makes bounds
SELECT SUM(CLAMP(cost / NULLIF(los, 0), 0, 500)) FROM visits;
-- = sum(clamp(cost / nullif(los, 0), 0, 500)): row rank, l1 10000, keys public 1, laplace

-- CLAMP makes them tighter
SELECT SUM(CLAMP(cost, 0, 1000)) FROM visits;
-- = sum(clamp(cost, 0, 1000)): row rank, l1 20000, keys public 1, laplace

-- WHERE makes bounds tighter
SELECT SUM(cost) FROM visits WHERE cost <= 1000;
-- = sum(cost): per-patient clip, l1 20000, keys public 1, laplace

-- FILTER makes bounds tighter
SELECT SUM(cost) FILTER (WHERE cost < 500) FROM visits;
-- = sum(cost) filter(where cost < 500): per-patient clip, l1 10000, keys public 1, laplace

-- a sum over patients
SELECT SUM(2026 - birth_year) FROM patients;
-- = sum(2026 - birth_year): one row per patient, l1 126, keys public 1, laplace

-- lower bound equal to upper bound: a constant, free of noise
SELECT SUM(0 * los) FROM visits;
-- = sum(0 * los): row rank, l1 0, keys public 1, none

-- equal bounds other than zero
SELECT SUM(CLAMP(los, 3, 3)) FROM visits;
-- = sum(clamp(los, 3, 3)): row rank, l1 60, keys public 1, laplace

-- a sum over lab values
SELECT test, SUM(value) FROM labs GROUP BY test;
-- = sum(value): row rank, l1 100000, keys public 13, laplace

-- absolute values
SELECT SUM(ABS(los - 30)) FROM visits;
-- = sum(abs(los - 30)): row rank, l1 600, keys public 1, laplace

-- sum of a rounding
SELECT SUM(ROUND(cost, -2)) FROM visits;
-- = sum(round(cost, -2)): row rank, l1 400000, keys public 1, laplace

-- sum of a square
SELECT SUM(POW(los, 2)) FROM visits;
-- = sum(power(los, 2)): row rank, l1 72000, keys public 1, laplace

-- sum of a root
SELECT SUM(SQRT(cost)) FROM visits;
-- = sum(sqrt(cost)): row rank, l1 2828.44, keys public 1, laplace

-- sum of a remainder
SELECT SUM(los % 7) FROM visits;
-- = sum(los % 7): row rank, l1 120, keys public 1, laplace

-- sum of a whole division
SELECT SUM(los // 7) FROM visits;
-- = sum(los // 7): row rank, l1 160, keys public 1, laplace
