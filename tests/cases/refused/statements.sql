---- Refused: statements. Name, statement, then the rule.

-- not SQL
SELECT COUNT(* FROM visits;
-- ! syntax

-- two statements
SELECT COUNT(*) FROM visits; SELECT COUNT(*) FROM labs;
-- ! one-statement

-- SET
SET threads = 1;
-- ! only-select

-- PRAGMA
PRAGMA database_list;
-- ! only-select

-- RESET
RESET ALL;
-- ! only-select

-- CALL
CALL pragma_version();
-- ! only-select

-- ATTACH
ATTACH 'other.duckdb';
-- ! only-select

-- COPY
COPY visits TO 'visits.csv';
-- ! only-select

-- a view
CREATE VIEW v AS SELECT * FROM visits;
-- ! only-select

-- an update
UPDATE visits SET cost = 0;
-- ! only-select

-- a file
SELECT * FROM read_csv('visits.csv');
-- ! table-function

-- a file by its name
SELECT * FROM 'visits.csv';
-- ! unknown-table

-- a statement in a string
SELECT * FROM query('SELECT 1');
-- ! table-function

-- the catalog
SELECT COUNT(*) FROM duckdb_tables();
-- ! table-function

-- the catalog's view
SELECT COUNT(*) FROM information_schema.tables;
-- ! unknown-clause

-- a sample
SELECT COUNT(*) FROM visits USING SAMPLE 3;
-- ! unknown-clause

-- a sample of a table
SELECT COUNT(*) FROM visits TABLESAMPLE 10%;
-- ! unknown-clause

-- a schema before the table
SELECT COUNT(*) FROM main.visits;
-- ! unknown-clause

-- an undeclared column
SELECT AVG(price) FROM visits;
-- ! unknown-column

-- a column in two tables
SELECT COUNT(*) FROM visits a JOIN visits b USING (patient_id) WHERE cost > 5;
-- ! ambiguous-column

-- a parameter
SELECT COUNT(*) FROM visits WHERE los > ?;
-- ! unknown-function

-- DISTINCT ON
SELECT DISTINCT ON (department) department FROM visits;
-- ! unknown-clause

-- too deep
SELECT COUNT(*) FROM visits WHERE
((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((los
>
1))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))));
-- ! too-large

-- a column that doubles in each CTE
WITH t0 AS (SELECT los + los AS c FROM visits), t1 AS (SELECT c + c AS c FROM t0), t2 AS (SELECT
c + c AS c FROM t1), t3 AS (SELECT c + c AS c FROM t2), t4 AS (SELECT c + c AS c FROM t3), t5 AS
(SELECT c + c AS c FROM t4), t6 AS (SELECT c + c AS c FROM t5), t7 AS (SELECT c + c AS c FROM
t6), t8 AS (SELECT c + c AS c FROM t7), t9 AS (SELECT c + c AS c FROM t8), t10 AS (SELECT c + c
AS c FROM t9), t11 AS (SELECT c + c AS c FROM t10) SELECT COUNT(*) FROM t11 WHERE c > 5;
-- ! too-large
