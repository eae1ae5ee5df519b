"""Everything an answer is besides its numbers: does it tell that one patient is in the table?

Each channel is a question whose failure, error text, columns, rows, keys, order or price is
another one where the target's row is there. They are tried on DuckDB itself, on DuckDB with noise
on every number that comes out (what a wrapper does), and on Discreet. (Which rows HAVING leaves out
there depends on noisy numbers; tests/engine/test_known_bugs.py checks that.)

Where Discreet sorts groups by noisy numbers, two runs differ by chance: there the question is asked
in many wordings with noise of their own, and it tells if some order comes out more often by
MORE_OFTEN of them with the target than without (by chance in less than one of a million tries).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from benchmarks.attacks.curators import Kind, curator
from engine import Engine, Refused

PATIENTS, TARGET = 200, 777
DECLARED = (
    "  people:\n    one_row_per_unit: true\n    columns:\n      id: unit\n"
    "      code: {integer: [0, 1000], not_null: true}\n      sick: boolean\n      words: text\n"
    "      cost: {real: [0, 1000]}\n"
)
HERE = f"code = {TARGET}"
NOISY, WORDINGS, MORE_OFTEN = "the order of groups", 60, 0.5

# channel -> a question; the names are those of docs/security.md.
CHANNELS = {
    "division by zero": f"SELECT COUNT(*) FROM people WHERE (code - {TARGET}) % (code - {TARGET}) "
                        "IS NOT DISTINCT FROM 5",
    "a cast that fails": f"SELECT SUM(CAST(words AS INTEGER)) FROM people WHERE {HERE}",
    "a cast that quotes the row": "SELECT COUNT(*) FROM people WHERE CAST(words AS DATE) > "
                                  f"DATE '2020-01-01' AND {HERE}",
    "overflow": "SELECT SUM(CAST(code AS UTINYINT)) FROM people",
    "not a number": f"SELECT SUM(CASE WHEN {HERE} THEN CAST('nan' AS DOUBLE) ELSE 1 END) "
                    "FROM people",
    "regular expressions from data": f"SELECT COUNT(*) FROM people WHERE {HERE} AND "
                                     "regexp_matches('x', words)",
    "a subquery of two rows": "SELECT COUNT(*) FROM people WHERE code > (SELECT code FROM people "
                              f"WHERE code IN (1, {TARGET}))",
    "error()": f"SELECT COUNT(*) FROM people WHERE CASE WHEN {HERE} THEN error(words) END IS NULL",
    "statistics of a table": "SELECT estimated_size FROM duckdb_tables()",
    "a table's storage": "SELECT count, stats FROM pragma_storage_info('people')",
    "SUMMARIZE": "SUMMARIZE people",
    "statistics of a column": "SELECT DISTINCT stats(code) FROM people",
    "strings that are run": f"SELECT * FROM query('SELECT words FROM people WHERE {HERE}')",
    "raw values through aggregates": f"SELECT ANY_VALUE(words) FROM people WHERE {HERE}",
    "lists of values": "SELECT LIST(words ORDER BY code) FROM people",
    "extremes of text": "SELECT MAX(words) FROM people",
    "ORDER BY and LIMIT": "SELECT words FROM people ORDER BY code DESC LIMIT 1",
    "rows that are shown": f"SELECT words FROM people WHERE {HERE}",
    "columns from data": "PIVOT people ON words USING COUNT(*)",
    "keys that are shown": "SELECT words, COUNT(*) FROM people GROUP BY words",
    "keys of a number": f"SELECT code, COUNT(*) FROM people WHERE {HERE} GROUP BY code",
    "the order of groups": "SELECT sick, COUNT(*) FROM people GROUP BY sick "
                           f"ORDER BY MAX(CASE WHEN {HERE} THEN 1 ELSE 0 END) DESC, sick DESC",
    "EXISTS in the select list": f"SELECT CAST(EXISTS (SELECT 1 FROM people WHERE {HERE}) "
                                 "AS VARCHAR)",
}


def columns(here: bool) -> dict[str, Any]:
    """Return people, with the target at the end or without."""
    code = np.arange(PATIENTS)
    found: dict[str, Any] = {
        "id": np.arange(PATIENTS), "code": code, "sick": code % 3 == 0,
        "words": np.array(["12"] * PATIENTS, dtype=object), "cost": code * 1.5,
    }
    last = {"id": PATIENTS, "code": TARGET, "sick": True, "words": "oops (", "cost": 7.0}
    return {name: np.append(values, last[name]) if here else values
            for name, values in found.items()}


Ask = Callable[[str], tuple[Any, ...]]


@contextmanager
def asked(kind: Kind, folder: Path, here: bool) -> Iterator[Ask]:
    """Open a curator; what it says is all that is seen of an answer, noisy numbers left out."""
    with curator(kind, folder, columns(here), DECLARED) as opened:
        if kind is Kind.DISCREET:
            yield lambda sql: _discreet(opened.engine, sql)
            return
        with duckdb.connect(str(folder / "data.duckdb"), read_only=True) as connection:
            yield lambda sql: _plain(connection, sql, numbers=kind is Kind.EXACT)


def _plain(connection: duckdb.DuckDBPyConnection, sql: str, numbers: bool) -> tuple[Any, ...]:
    try:
        found = connection.execute(sql)
        rows = found.fetchall()
    except duckdb.Error as error:
        return type(error).__name__, str(error)
    kinds = [(part[0], str(part[1])) for part in found.description]
    return repr(kinds), repr([[_shown(cell, numbers) for cell in row] for row in rows])


def _shown(cell: object, numbers: bool) -> object:
    """Leave a number out that noise was added to; noise hides neither NaN nor what is no number."""
    is_number = isinstance(cell, int | float) and not isinstance(cell, bool) and cell == cell
    return cell if numbers or not is_number else "a number"


def _discreet(engine: Engine, sql: str) -> tuple[Any, ...]:
    before = engine.budget()
    said: list[Any] = []
    try:
        plan = engine.explain(sql, epsilon=0.01)
        said.append(str(plan))
        result = engine.query(sql, epsilon=0.01)
        said += [result.columns, result.table.types, result.cost]
        rows = [[_shown(cell, False) for cell in row] for row in result.rows]
    except Refused as refusal:
        said.append(str(refusal))
        rows = []
    return (repr(said), str(engine.budget()), str(before), len(engine.history()), repr(rows))


def told(kind: Kind, folder: Path) -> dict[str, bool]:
    """Return for each channel whether what is said differs with the target's row."""
    with asked(kind, folder / "with", True) as one, asked(kind, folder / "without", False) as two:
        return {
            name: _orders_differ(sql, one, two) if name == NOISY and kind is Kind.DISCREET
            else one(sql) != two(sql)
            for name, sql in CHANNELS.items()
        }


def _orders_differ(sql: str, one: Ask, two: Ask) -> bool:
    """Ask in many wordings: all but the order must be equal, and each order come about as often."""
    wordings = [sql.replace("FROM people", f"FROM people WHERE cost > -{n + 1}")
                for n in range(WORDINGS)]
    answers = [(one(wording), two(wording)) for wording in wordings]
    if any(first[:-1] != second[:-1] for first, second in answers):
        return True
    first, second = (Counter(pair[side][-1] for pair in answers) for side in (0, 1))
    return any(abs(first[order] - second[order]) > MORE_OFTEN * WORDINGS
               for order in first | second)
