"""Every channel through which SQL leaks a row on a plain database, tried on a paid engine.

Each was seen to read one patient's bit with certainty on DuckDB itself. Here it is refused before
anything is read or charged, by the same words on every database; or it is answered, and then
status, columns, types and price are the same for a patient who triggers it and for none.
"""

from __future__ import annotations

import pytest

from engine import Engine, Refused

# channel -> texts that use it; docs/security.md lists channels by these names.
REFUSED = {
    "errors that depend on a row": (
        "SELECT COUNT(*) FROM visits WHERE error('patient ' || diagnosis) IS NULL",
        "SELECT COUNT(*) FROM visits WHERE cost > (SELECT cost FROM visits WHERE los = 60)",
        "SELECT COUNT(*) FROM visits WHERE CASE WHEN los = 5 THEN error('yes') END IS NULL",
        "SELECT COUNT(*) FROM visits WHERE CAST(diagnosis AS STRUCT(a INTEGER)) IS NULL",
        "SELECT COUNT(*) FROM visits WHERE diagnosis::INTEGER[] IS NULL",
        "SELECT COUNT(*) FROM visits WHERE json(diagnosis) IS NULL",
    ),
    "regular expressions from data": (
        "SELECT COUNT(*) FROM visits WHERE regexp_matches(diagnosis, department)",
        "SELECT COUNT(*) FROM visits WHERE regexp_replace(diagnosis, diagnosis, '') = ''",
        "SELECT COUNT(*) FROM visits WHERE diagnosis SIMILAR TO department",
        "SELECT COUNT(*) FROM visits WHERE diagnosis LIKE department",
        "SELECT COUNT(*) FROM visits WHERE diagnosis GLOB department",
        "SELECT COUNT(*) FROM visits WHERE diagnosis ~ department",
    ),
    "time of a heavy predicate": (
        "SELECT COUNT(*) FROM visits WHERE readmitted AND (SELECT COUNT(*) FROM range(999999)) > 0",
        "SELECT COUNT(*) FROM visits WHERE (SELECT 1 FROM range(9223372036854775807) LIMIT 1) = 1",
        "SELECT COUNT(*) FROM visits WHERE (SELECT 1 FROM range(los) LIMIT 1) = 1",
        "SELECT COUNT(*) FROM visits v WHERE EXISTS (SELECT 1 FROM visits a, visits b, visits c "
        "WHERE a.cost + b.cost + c.cost > v.cost)",
        "SELECT COUNT(*) FROM visits WHERE repeat(diagnosis, 100000000) = 'x'",
        "SELECT COUNT(*) FROM visits WHERE len(list_transform(range(los * 1000000), x -> x)) > 1",
        "SELECT COUNT(*) FROM visits WHERE levenshtein(diagnosis, diagnosis) = 0",
        "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r) SELECT COUNT(*) FROM r",
        "SELECT COUNT(*) FROM visits WHERE sleep_ms(100) IS NULL",
    ),
    "metadata and settings": (
        "SELECT estimated_size FROM duckdb_tables()", "SELECT * FROM duckdb_settings()",
        "SELECT * FROM duckdb_columns()", "SELECT * FROM pragma_storage_info('visits')",
        "SELECT * FROM pragma_table_info('visits')", "PRAGMA storage_info('visits')",
        "SUMMARIZE visits", "DESCRIBE visits", "SHOW TABLES", "SHOW ALL TABLES",
        "SELECT COUNT(*) FROM information_schema.columns", "SELECT * FROM sqlite_master",
        "SELECT * FROM pg_catalog.pg_stats", "SELECT stats(cost) FROM visits",
        "SELECT current_setting('memory_limit')", "SELECT getenv('HOME')", "SELECT version()",
        "SELECT current_user", "SELECT txid_current()", "SELECT now()", "SELECT uuid()",
        "EXPLAIN SELECT COUNT(*) FROM visits", "EXPLAIN ANALYZE SELECT COUNT(*) FROM visits",
        "SELECT COUNT(*) FROM visits WHERE cost > current_setting('threads')",
        "SELECT nextval('s')", "SELECT typeof(cost) FROM visits",
    ),
    "files and network": (
        "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('/etc/passwd')", "SELECT * FROM read_parquet('s3://x/y')",
        "SELECT * FROM '/etc/passwd'", "SELECT * FROM glob('/*')",
        "COPY visits TO '/tmp/v.csv'", "COPY (SELECT * FROM visits) TO '/tmp/v.csv'",
        "ATTACH '/tmp/x.db'", "EXPORT DATABASE '/tmp/x'", "INSTALL httpfs", "LOAD httpfs",
        "SELECT COUNT(*) FROM sniff_csv('/etc/passwd')",
        "SELECT * FROM sqlite_scan('ledger.sqlite', 'charges')",
    ),
    "strings that are run": (
        "SELECT * FROM query('SELECT * FROM visits')", "SELECT * FROM query_table('visits')",
        "SELECT eval('SELECT 1')", "PREPARE p AS SELECT * FROM visits", "EXECUTE p",
        "SELECT * FROM json_execute_serialized_sql('{}')", "SELECT COLUMNS('c.*') FROM visits",
        "CREATE MACRO m(x) AS x", "SELECT COUNT(*) FROM visits; SELECT * FROM visits",
    ),
    "raw values through aggregates": (
        "SELECT FIRST(diagnosis) FROM visits", "SELECT LAST(diagnosis) FROM visits",
        "SELECT ANY_VALUE(diagnosis) FROM visits", "SELECT LIST(cost) FROM visits",
        "SELECT ARRAY_AGG(cost) FROM visits", "SELECT STRING_AGG(diagnosis, ',') FROM visits",
        "SELECT GROUP_CONCAT(diagnosis) FROM visits", "SELECT ARG_MAX(diagnosis, cost) FROM visits",
        "SELECT MAX_BY(diagnosis, cost) FROM visits", "SELECT HISTOGRAM(los) FROM visits",
        "SELECT BIT_XOR(los) FROM visits",
        "SELECT APPROX_TOP_K(diagnosis, 3) FROM visits", "SELECT RESERVOIR_QUANTILE(cost, 0.5) "
        "FROM visits", "SELECT MAX(diagnosis) FROM visits", "SELECT BIT_OR(los) FROM visits",
        "SELECT PRODUCT(los) FROM visits", "SELECT BOOL_OR(readmitted) FROM visits",
        "SELECT MIN(cost, 3) FROM visits", "SELECT ENTROPY(diagnosis) FROM visits",
        "SELECT JSON_GROUP_ARRAY(cost) FROM visits",
        "SELECT MAP(LIST(los), LIST(cost)) FROM visits",
    ),
    "rows picked out": (
        "SELECT rowid FROM visits", "SELECT COUNT(*) FROM visits WHERE rowid = 4",
        "SELECT COUNT(*) FROM visits TABLESAMPLE 1 ROWS",
        "SELECT COUNT(*) FROM visits USING SAMPLE 1",
        "SELECT COUNT(*) FROM (SELECT * FROM visits LIMIT 1) AS t",
        "SELECT COUNT(*) FROM (SELECT * FROM visits ORDER BY cost DESC LIMIT 1) AS t",
        "SELECT COUNT(*) FROM (SELECT * FROM visits OFFSET 5) AS t",
        "SELECT COUNT(*) FROM (SELECT ROW_NUMBER() OVER () AS r, los FROM visits) AS t WHERE r = 1",
        "SELECT COUNT(*) FROM visits QUALIFY ROW_NUMBER() OVER (ORDER BY cost) = 1",
        "SELECT COUNT(*) FROM visits WHERE patient_id = 1000",
        "SELECT COUNT(*) FROM visits WHERE hash(patient_id) % 2 = 1",
        "SELECT COUNT(*) FROM visits WHERE patient_id % 2 = 1",
        "SELECT COUNT(*) FROM visits WHERE visit_id < 100",
        "SELECT COUNT(*) FROM visits WHERE __u = 1",
        "SELECT COUNT(*) FROM visits WHERE __rank = 1", "SELECT COUNT(*) FROM visits ORDER BY cost",
        "SELECT DISTINCT ON (department) diagnosis FROM visits",
        "FROM visits", "TABLE visits", "PIVOT visits ON department USING SUM(cost)",
        "SELECT UNNEST(LIST(cost)) FROM visits", "SELECT * FROM visits POSITIONAL JOIN patients",
        "SELECT COUNT(*) FROM visits ASOF JOIN patients ON visits.los >= patients.birth_year",
    ),
    "chance of the database": (
        "SELECT COUNT(*) FROM visits WHERE random() < 0.5", "SELECT setseed(0.5)",
        "SELECT COUNT(*) FROM visits WHERE setseed(cost / 20000) IS NULL",
        "SELECT COUNT(*) FROM visits WHERE gen_random_uuid() IS NULL",
    ),
}
TEXTS = [(channel, text) for channel, texts in REFUSED.items() for text in texts]

# Answered, because the functions are total here; each pair of a channel and the row it would
# betray is what tests/engine/test_totality.py tries over all functions.
ANSWERED = {
    "division by zero": "SELECT COUNT(*) FROM visits WHERE 100 // los > 3 OR 7 % los = 1",
    "a cast that fails": "SELECT COUNT(*) FROM visits WHERE CAST(diagnosis AS INTEGER) = 4 "
                         "OR CAST(diagnosis AS DATE) > DATE '2020-01-01'",
    "overflow": "SELECT SUM(CLAMP(cost * 1e300 * cost, -1, 1)) FROM visits",
    "a whole number that overflows": "SELECT COUNT(*) FROM visits "
                                     "WHERE los * 9007199254740992 * los > 5",
    "not a number": "SELECT SUM(cost), AVG(cost) FROM visits WHERE cost = cost OR cost <> cost",
    "root and logarithm": "SELECT SUM(CLAMP(SQRT(los - 30) + LN(los - 30), -5, 5)) FROM visits",
    "a substring out of range": "SELECT COUNT(*) FROM visits WHERE "
                                "SUBSTR(diagnosis, -10000, 10000) = 'x'",
    "a text that is no text": "SELECT COUNT(*) FROM visits WHERE UPPER(diagnosis) = 'X'",
    "a date out of range": "SELECT COUNT(*) FROM visits "
                           "WHERE visit_date + INTERVAL 30 DAY > DATE '2020-01-01'",
}


@pytest.mark.parametrize(("channel", "sql"), TEXTS)
def test_a_channel_is_closed_before_anything_is_read(
    channel: str, sql: str, clinics: dict[str, Engine]
) -> None:
    said = set()
    for name in ("base", "with a dirty patient", "with a greedy patient"):
        for ask in (clinics[name].query, clinics[name].explain):
            with pytest.raises(Refused) as caught:
                ask(sql, epsilon=0.1)
            said.add((caught.value.rule, str(caught.value)))
    assert len(said) == 1


def test_nothing_of_it_is_charged(paid: Engine) -> None:
    for _, sql in TEXTS:
        with pytest.raises(Refused):
            paid.query(sql, epsilon=0.1)
    assert paid.history() == ()


@pytest.mark.parametrize("channel", ANSWERED)
def test_a_total_function_answers_everybody_alike(
    channel: str, clinics: dict[str, Engine]
) -> None:
    seen = set()
    for engine in clinics.values():
        result = engine.query(ANSWERED[channel], epsilon=0.5)
        seen.add((result.columns, result.table.types, len(result.rows),
                  result.plan.full_cost.epsilon))
        assert all(cell is not None and cell == cell for cell in result.rows[0])
    assert len(seen) == 1
