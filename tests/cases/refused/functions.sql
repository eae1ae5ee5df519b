---- Refused: functions. Name, statement, then the rule.

-- a function outside the list
SELECT COUNT(*) FROM visits WHERE error(diagnosis);
-- ! unknown-function

-- a random number
SELECT COUNT(*) FROM visits WHERE random() < 0.5;
-- ! unknown-function

-- the clock
SELECT COUNT(*) FROM visits WHERE visit_date < today();
-- ! unknown-function

-- a setting
SELECT current_setting('memory_limit');
-- ! unknown-function

-- a variable
SELECT getvariable('x');
-- ! unknown-function

-- a pattern from data
SELECT COUNT(*) FROM visits WHERE regexp_matches(diagnosis, department);
-- ! types

-- LIKE of a column
SELECT COUNT(*) FROM visits WHERE diagnosis LIKE department;
-- ! types

-- a very long text
SELECT COUNT(*) FROM visits WHERE repeat(diagnosis, 1000000000) = '';
-- ! unknown-function

-- a text that REPLACE multiplies
SELECT COUNT(*) FROM visits WHERE LENGTH(REPLACE(REPLACE(diagnosis, '0', 'xxxxxxxxxx'), 'x',
'yyyyyyyyyy')) > 5;
-- ! types

-- a date moved out of the calendar
SELECT COUNT(*) FROM visits WHERE CAST(diagnosis AS DATE) + 5 > DATE '2020-01-01';
-- ! types

-- a date moved by thousands of years
SELECT COUNT(*) FROM visits WHERE visit_date + INTERVAL 2700 YEAR + INTERVAL 2700 YEAR +
INTERVAL 2700 YEAR > DATE '2020-01-01';
-- ! types

-- an aggregate inside WHERE
SELECT COUNT(*) FROM visits WHERE COUNT(*) > 5;
-- ! aggregate-place

-- an aggregate inside an aggregate
SELECT SUM(COUNT(*)) FROM visits;
-- ! aggregate-place

-- text is not a number
SELECT SUM(department) FROM visits;
-- ! types

-- a condition that is a number
SELECT COUNT(*) FROM visits WHERE los;
-- ! types

-- a date compared with a word
SELECT COUNT(*) FROM visits WHERE visit_date > 'soon';
-- ! types

-- text compared with a number
SELECT COUNT(*) FROM visits WHERE department > 5;
-- ! types

-- buckets that the data decide
SELECT WIDTH_BUCKET(cost, 0, cost, 5) AS band, COUNT(*) FROM visits GROUP BY 1;
-- ! types
