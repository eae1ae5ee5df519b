"""The door: what a governed connection refuses, what a failure tells, what the desk sees."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from engine.database import (
    FAILURE,
    DatabaseFailure,
    DeskTable,
    open_desk,
    open_governed,
    run,
)


@pytest.fixture
def governed(tmp_path: Path) -> Iterator[Any]:
    with duckdb.connect(str(tmp_path / "g.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT i, 'Anna' || i AS name FROM range(100) r(i)")
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    connection = open_governed(tmp_path / "g.duckdb", "200MB", 1, seconds=0.5)
    yield connection
    connection.close()


REFUSED_BY_DUCKDB = [
    "SELECT * FROM read_csv('{folder}/x.csv')",
    "SELECT * FROM '{folder}/x.csv'",
    "SELECT * FROM read_text('{folder}/x.csv')",
    "SELECT * FROM read_blob('{folder}/g.duckdb')",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM frame",
    "COPY t TO '{folder}/o.csv'",
    "COPY t TO '{folder}/g.duckdb.tmp/o.csv'",
    "EXPORT DATABASE '{folder}/o'",
    "ATTACH '{folder}/y.duckdb' AS y",
    "ATTACH ':memory:' AS y",
    "INSTALL json",
    "LOAD '{folder}/x.duckdb_extension'",
    "SET threads = 3",
    "RESET threads",
    "PRAGMA threads = 3",
    "SET max_execution_time = 0",
    "SET enable_external_access = true",
    "SET temp_directory = '{folder}'",
    "CALL enable_logging()",
    "CREATE SECRET (TYPE s3)",
    "INSERT INTO t VALUES (1, 'x')",
    "DELETE FROM t",
    "CREATE TABLE z (i INTEGER)",
    "DROP TABLE t",
]
REFUSED_BY_THE_DOOR = [
    "COPY t TO '{folder}/g.duckdb.wal'",  # DuckDB lets the log's own path through
    "CREATE TEMP TABLE z (i INTEGER)",
    "CREATE TEMP MACRO abs(x) AS 42",
    "SET VARIABLE a = 1",
    "PREPARE p AS SELECT 1",
    "CHECKPOINT",
    "EXPLAIN ANALYZE SELECT * FROM t",
    "PRAGMA database_size",
    "SUMMARIZE t; SELECT 1",
    "SELECT 1; SELECT 2",
    "USE main",
    "BEGIN",
    "LOAD icu",
    "",
    "SELECT",
]


@pytest.mark.parametrize("statement", REFUSED_BY_DUCKDB)
def test_the_lock_refuses_without_help_from_the_door(
    governed: Any, tmp_path: Path, statement: str
) -> None:
    frame = {"a": [1]}  # what a replacement scan would find
    assert frame
    with pytest.raises(duckdb.Error):
        governed.execute(statement.format(folder=tmp_path)).fetchall()
    assert not (tmp_path / "g.duckdb.wal").exists()


@pytest.mark.parametrize("statement", [*REFUSED_BY_DUCKDB, *REFUSED_BY_THE_DOOR])
def test_the_door_runs_one_select_and_nothing_else(
    governed: Any, tmp_path: Path, statement: str
) -> None:
    with pytest.raises(DatabaseFailure):
        run(governed, statement.format(folder=tmp_path))
    assert run(governed, "SELECT abs(-1)").rows == [(1,)]


FAILING = [
    "SELECT CAST(name AS INTEGER) FROM t",
    "SELECT error(name) FROM t",
    "SELECT * FROM t WHERE Anna1 = 1",
    "SELECT DATE '2020-01-01' + CAST(i * 100000000 AS INTEGER) FROM t",
    "SELECT sum(a.i) FROM t a, t b, t c, t d, t e, t f",  # longer than max_execution_time
    "SELECT list(a.i) FROM t a, t b, t c, t d",  # more than the memory limit
]


@pytest.mark.parametrize("statement", FAILING)
def test_a_failure_says_the_same_whatever_happened(governed: Any, statement: str) -> None:
    with pytest.raises(DatabaseFailure) as caught:
        run(governed, statement)
    assert str(caught.value) == FAILURE
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert run(governed, "SELECT count(*) FROM t").rows == [(100,)]


def test_answers_have_names_types_and_python_rows(governed: Any) -> None:
    answer = run(governed, "SELECT i, name, i / 2 AS half FROM t WHERE i < $1 ORDER BY i", [2])
    assert answer.columns == ("i", "name", "half")
    assert answer.types == ("BIGINT", "VARCHAR", "DOUBLE")
    assert answer.rows == [(0, "Anna0", 0.0), (1, "Anna1", 0.5)]
    assert "Anna" not in repr(answer)


def test_one_process_may_open_a_snapshot_many_times(governed: Any, tmp_path: Path) -> None:
    found: list[int] = []

    def ask() -> None:
        other = open_governed(tmp_path / "g.duckdb", "1GB", 2)
        found.append(run(other, "SELECT count(*) FROM t").rows[0][0])
        other.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [100] * 8


RELEASED = DeskTable(
    ("k", "n", "s"), ("VARCHAR", "HUGEINT", "DECIMAL(38,6)"),
    (["a", None, "it's"], [2**100, 1, None], [Decimal("1.5"), Decimal("-2.000001"), None]),
)  # fmt: skip


def test_the_desk_sees_the_tables_given_and_forgets_them() -> None:
    desk = open_desk()
    try:
        answer = desk.run({"r": RELEASED}, "SELECT * FROM r ORDER BY k NULLS LAST")
        assert answer.types == ("VARCHAR", "HUGEINT", "DECIMAL(38,6)")
        assert answer.rows == [
            ("a", 2**100, Decimal("1.5")), ("it's", None, None), (None, 1, Decimal("-2.000001")),
        ]  # fmt: skip
        with pytest.raises(DatabaseFailure):
            desk.run({}, "SELECT * FROM r")
        empty = DeskTable(("x",), ("DOUBLE",), ((),))
        assert desk.run({"r": empty, "q": empty}, "SELECT count(*) FROM r, q").rows == [(0,)]
    finally:
        desk.close()


def test_the_desk_serves_threads_side_by_side() -> None:
    desk = open_desk()
    wrong: list[object] = []

    def work(number: int) -> None:
        table = DeskTable(("x",), ("INTEGER",), ([number] * 10,))
        for _ in range(20):
            rows = desk.run({"r": table}, "SELECT sum(x) FROM r").rows
            if rows != [(10 * number,)]:
                wrong.append(rows)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    desk.close()
    assert not wrong


@pytest.mark.parametrize("statement", [
    "SELECT * FROM read_csv('{folder}/x.csv')", "COPY (SELECT 1) TO '{folder}/o.csv'",
    "ATTACH ':memory:' AS y", "CREATE TABLE y (i INTEGER)", "SET threads = 2",
])
def test_the_desk_is_locked_too(tmp_path: Path, statement: str) -> None:
    (tmp_path / "x.csv").write_text("a\n1\n")
    desk = open_desk()
    with pytest.raises(DatabaseFailure):
        desk.run({}, statement.format(folder=tmp_path))
    desk.close()


def test_unusable_tables_and_limits_are_refused(tmp_path: Path) -> None:
    desk = open_desk()
    with pytest.raises(DatabaseFailure):
        desk.run({"r": DeskTable(("x", "y"), ("INTEGER",) * 2, ([1], [1, 2]))}, "SELECT 1")
    desk.close()
    with pytest.raises(DatabaseFailure):
        open_governed(tmp_path / "missing.duckdb")
    with pytest.raises(DatabaseFailure):
        open_desk(threads=0)
