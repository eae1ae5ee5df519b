"""A question in, how the engine's unbounded, noiseless answer differs from plain DuckDB's out.

The oracle is the very text of the user run on the very file of the steward. What may differ is
what a release cannot or need not say: groups that plain SQL does not show may appear with zeros
(public keys are answered whether or not they occur), an empty SUM is 0, what is no number (NaN)
is NULL, which of several most frequent values MODE gives is left open, a spread of one row is
NULL, and so is sometimes not a correlation with what does not vary.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import sqlglot
from sqlglot import exp

from engine import Engine
from planner.bind import bind
from planner.expression import columns_of
from planner.parse import parse
from planner.relation import Release, Summary, walk_relations

# CLAMP, which DuckDB has not; LEAST and GREATEST that keep NULL, and a root without NaN
# (docs/sql.md).
MACROS = tuple(
    f"CREATE MACRO {name} AS CASE WHEN {where} THEN {value} END" for name, where, value in (
        ("clamp(x, low, high)", "x IS NOT NULL", "least(greatest(x, low), high)"),
        ("at_least(x, low)", "x IS NOT NULL", "greatest(x, low)"),
        ("at_most(x, high)", "x IS NOT NULL", "least(x, high)"),
        ("root_of(x)", "x >= 0", "sqrt(x)"),
    )
)

# Where SQL's answer and the engine's may part: place -> test of the engine's and DuckDB's answer.
Loose = dict[int, Callable[[Any, Any], bool]]
Row = tuple[Any, ...]


def differences(engine: Engine, plain: Any, sql: str, said_plainly: str = "") -> list[str]:
    """List the rows in which the engine and DuckDB differ, by `plain`'s file."""
    answer = list(engine.query(sql, epsilon=math.inf).rows)
    wanted = plain.execute(said_plainly or sql).fetchall()
    measured, loose = _measured(engine, sql), _loose(sql)
    found, missing = _unmatched(answer, wanted, measured, loose)
    said = [f"missing {row}" for row in missing]
    said += [f"invented {row}" for row in found if not _is_empty(row, measured)]
    if not said and not found and "ORDER BY" in sql and " OVER " not in sql:
        pairs = zip(answer, wanted, strict=True)
        if not all(_alike(f, w, measured, loose) for f, w in pairs):
            said.append("another order")
    return said


def plainly(sql: str) -> str:
    """Say in DuckDB's words what the engine understands by a question.

    LEAST and GREATEST keep NULL where they clip, a root of less than nothing is NULL, what rounds
    to whole numbers gives whole numbers, which `//` cuts, and 1.5 is a DOUBLE: medians of DECIMALs
    are rounded to their digits.
    """
    tree = sqlglot.parse_one(sql, dialect="duckdb")
    for node in reversed(list(tree.walk())):  # from the leaves up
        new = _said_plainly(node)
        if new is not None and node.parent is not None:
            node.replace(new)
    return tree.sql(dialect="duckdb")


def _said_plainly(node: exp.Expression) -> exp.Expression | None:
    if isinstance(node, exp.Greatest | exp.Least) and len(node.expressions) == 1:
        name = "at_least" if isinstance(node, exp.Greatest) else "at_most"
        return exp.Anonymous(this=name, expressions=[node.this.copy(), node.expressions[0].copy()])
    if isinstance(node, exp.Literal) and not node.is_string and "." in node.name:
        return exp.cast(node.copy(), "double")
    if isinstance(node, exp.Sqrt):
        return exp.Anonymous(this="root_of", expressions=[node.this.copy()])
    is_whole = isinstance(node, exp.Floor | exp.Ceil)
    if isinstance(node, exp.Round):
        decimals = node.args.get("decimals")
        is_whole = decimals is None or int(decimals.to_py()) <= 0
    return exp.TryCast(this=node.copy(), to=exp.DataType.build("BIGINT")) if is_whole else None


def _unmatched(
    found: list[Row], wanted: Sequence[Row], measured: list[bool], loose: Loose
) -> tuple[list[Row], list[Row]]:
    """Pair the rows off; return what is left of the found and of the wanted."""
    same = Counter(map(_plainly, found)) & Counter(map(_plainly, wanted))
    left, right = _without(found, same), _without(wanted, same)
    waiting: dict[Row, list[Row]] = defaultdict(list)
    for row in left:
        waiting[_key(row, measured)].append(row)
    missing = []
    for row in right:
        candidates = waiting[_key(row, measured)]
        match = next((f for f in candidates if _alike(f, row, measured, loose)), None)
        if match is None:
            missing.append(row)
        else:
            candidates.remove(match)
    return [row for rows in waiting.values() for row in rows], missing


def _key(row: Row, measured: list[bool]) -> Row:
    """Return the cells that are keys, spelt so that equal ones are equal."""
    return tuple(
        f"{float(cell):.10g}" if isinstance(cell, int | float | Decimal) else _moment(cell)
        for cell, noisy in zip(_plainly(row), measured, strict=True) if not noisy
    )


def _without(rows: Sequence[Row], taken: Counter[Row]) -> list[Row]:
    waiting, left = Counter(taken), []
    for row in rows:
        if waiting[_plainly(row)] > 0:
            waiting[_plainly(row)] -= 1
        else:
            left.append(row)
    return left


def _plainly(row: Row) -> Row:
    return tuple(None if isinstance(cell, float) and math.isnan(cell) else cell for cell in row)


def _alike(found: Row, wanted: Row, measured: list[bool], loose: Loose) -> bool:
    return all(
        _same(f, w) or (noisy and w is None and not f) or (place in loose and loose[place](f, w))
        for place, (f, w, noisy) in enumerate(zip(found, wanted, measured, strict=True))
    )


def _same(found: object, wanted: object) -> bool:
    if isinstance(wanted, float) and math.isnan(wanted):
        wanted = None
    if found is None or wanted is None:
        return found is wanted
    if isinstance(wanted, bool) or isinstance(found, bool):
        return bool(found) is bool(wanted)
    if isinstance(wanted, date):
        return _moment(found) == _moment(wanted)
    if isinstance(wanted, str) or isinstance(found, str):
        return found == wanted
    if isinstance(wanted, Decimal):  # quantiles of decimals are rounded to the column's digits
        return abs(float(found) - float(wanted)) <= 10.0 ** int(wanted.as_tuple().exponent)  # type: ignore[arg-type]
    return math.isclose(float(found), float(wanted), rel_tol=1e-9, abs_tol=1e-9)  # type: ignore[arg-type]


def _moment(value: object) -> object:
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day)
    return value


def _is_empty(row: Row, measured: list[bool]) -> bool:
    return all(not cell for cell, noisy in zip(row, measured, strict=True) if noisy)


def _measured(engine: Engine, sql: str) -> list[bool]:
    """Say which outputs are computed from measures and not from keys alone."""
    bound = bind(parse(sql), engine.catalog)
    keys = {
        (node.source, f"k{i + 1}") for node in walk_relations(bound.rows.relation)
        if isinstance(node, Release | Summary) for i in range(len(node.keys))
    }
    return [
        any((c.source, c.name) not in keys for c in columns_of(expression))
        for _, expression in bound.rows.outputs
    ]


def _loose(sql: str) -> Loose:
    """Return, for outputs where SQL and the engine may part, at which of SQL's answers they do."""
    tree = sqlglot.parse_one(sql, dialect="duckdb")
    found: Loose = {}
    for place, shown in enumerate(tree.selects):
        if shown.find(exp.Mode):
            found[place] = lambda found, wanted: True
        elif shown.find(exp.VariancePop, exp.StddevPop, exp.CovarPop):
            found[place] = lambda found, wanted: wanted == 0
        elif shown.find(exp.Stddev, exp.StddevSamp):
            found[place] = _same_spread
        elif shown.find(exp.Corr, exp.RegrSlope):
            found[place] = lambda found, wanted: wanted is None or math.isnan(wanted) or (
                found is None and wanted == 0)  # of equal numbers, rounded
    return found


def _same_spread(found: Any, wanted: Any) -> bool:
    """Compare variances: the root of one that is rounded to 1e-16 instead of 0 is 1e-8."""
    return None not in (found, wanted) and math.isclose(found**2, wanted**2, abs_tol=1e-9)


__all__ = ["MACROS", "differences", "plainly"]
