"""Neighbour replay: one patient more or less moves no measure further than its plan states.

For every accepted case and every neighbour of the base clinic, the exact integers before noise
are compared: L1 and L2 distance over all groups, in grid units, without tolerance. Everything
else of the plan (keys, SQL, price, mechanism, scale, step) must be the same, and no statement may
fail on either side.

The second half shows that the replay would notice: each test plants one bug and must fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

import planner.bounded_sql
import planner.bounding
import planner.joins
from engine import Engine, Refused
from planner.bounding import Strategy
from planner.emit import Printer
from planner.pilot import Bounds
from planner.relation import Mark, Scan
from tests.engine.replay import CHANGES, Case, Run, read_cases, replayed, violations

CASES = read_cases("accepted")
ROWS = (None, 2)


def compared(base: Engine, neighbour: Engine, sql: str, rows: int | None,
             memory: dict[tuple[str, int | None], Run] | None = None,
             bounds: Bounds = Bounds.DECLARED) -> list[str]:
    known = memory if memory is not None else {}
    if (sql, rows) not in known:
        known[sql, rows] = replayed(base, sql, rows, bounds=bounds)
    one = known[sql, rows]
    two = replayed(neighbour, sql, rows, one, bounds)
    return [f"{v} (rows={rows})" for v in violations(one, two)]


@pytest.fixture(scope="module")
def memory() -> dict[tuple[str, int | None], Run]:
    return {}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_patient_moves_no_measure_further_than_stated(
    case: Case, clinics: dict[str, Engine], memory: dict[tuple[str, int | None], Run]
) -> None:
    for rows in ROWS:
        try:
            clinics["base"].explain(case.sql, epsilon=0.5, rows=rows)
        except Refused:
            assert rows is not None  # tables of one row a patient take no other number
            continue
        found = {
            change: wrong for change in CHANGES
            if (wrong := compared(clinics["base"], clinics[change], case.sql, rows, memory))
        }
        assert found == {}


ADAPTIVE = [case for case in CASES if any(
    word in case.sql.upper() for word in ("SUM(", "AVG(", "COUNT(")
)]
STRANGERS = ("without the heavy patient", "with a greedy patient", "with a dirty patient")


@pytest.mark.parametrize("case", ADAPTIVE, ids=str)
def test_one_patient_moves_neither_pilot_nor_answer_further_than_stated(
    case: Case, clinics: dict[str, Engine]
) -> None:
    """The pilot on both sides, and the answer under the bounds that one released pilot chose."""
    memory: dict[tuple[str, int | None], Run] = {}
    found = {
        change: wrong for change in STRANGERS
        if (wrong := compared(clinics["base"], clinics[change], case.sql, None, memory,
                              Bounds.AUTO))
    }
    assert found == {}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_shape_of_an_answer_is_the_same_for_all(
    case: Case, clinics: dict[str, Engine]
) -> None:
    """Columns and types never depend on the data; nor do the groups, where keys are public."""
    seen = set()
    for engine in clinics.values():
        result = engine.query(case.sql, epsilon=0.5, noiseless=True)
        public = all(r.keys == "public" for r in result.plan.releases)
        filtered = any(word in case.sql for word in ("HAVING", "WHERE n", "DISTINCT n"))
        groups = len(result.rows) if public and not filtered else None
        seen.add((result.columns, result.table.types, groups, str(result.plan)))
    assert len(seen) == 1


def test_catalogs_do_not_depend_on_patients(clinics: dict[str, Engine]) -> None:
    texts = {
        repr([replace(table, public_rows=None) for table in engine.catalog.tables])
        for engine in clinics.values()
    }
    assert len(texts) == 1


# ---- power: a planted bug is found ---------------------------------------------------------


def caught(clinics: dict[str, Engine], sqls: Iterable[str], rows: int | None = None) -> list[str]:
    """Return what the replay finds on the given questions."""
    return [
        wrong for sql in sqls for change in CHANGES
        for wrong in compared(clinics["base"], clinics[change], sql, rows)
    ]


COUNTS = ("SELECT COUNT(*) FROM visits", "SELECT department, COUNT(*) FROM visits GROUP BY 1")
SUMS = ("SELECT SUM(cost) FROM visits", "SELECT SUM(los - 30) FROM visits")
CLIPS = ("SELECT COUNT(*) FROM visits WHERE los >= 0",
         "SELECT SUM(cost) FROM visits WHERE los >= 0")


def test_nothing_is_found_where_nothing_is_planted(clinics: dict[str, Engine]) -> None:
    assert caught(clinics, (*COUNTS, *SUMS, *CLIPS)) == []


@pytest.mark.parametrize("sql", [COUNTS[0], SUMS[0], CLIPS[0]])
def test_halved_sensitivity_is_found(
    sql: str, clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = Strategy.sensitivity

    def halved(self: Strategy, measure: Any, largest: int) -> tuple[int, int]:
        l1, l2_squared = true(self, measure, largest)
        return max(l1 // 2, 1), max(l2_squared // 4, 1)

    monkeypatch.setattr(Strategy, "sensitivity", halved)
    assert caught(clinics, [sql])


def test_a_forgotten_row_limit_is_found(
    clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner.bounding, "limited", lambda relation, driver, rows: relation)
    assert caught(clinics, COUNTS)


def test_a_forgotten_clamp_is_found(
    clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value beyond the bounds that the grid was made for."""

    def unclamped(printer: Any, measure: Any, argument: Any, grid: Any) -> str:
        return f"CAST(round({printer.scalar(argument)} / {grid.step!r}) AS BIGINT)"

    monkeypatch.setattr(planner.bounded_sql, "_grid_value", unclamped)
    rows = "SELECT SUM(cost) FILTER (WHERE cost <= 100) FROM visits"
    assert caught(clinics, [rows]) == []  # the clip of each patient's part still holds
    monkeypatch.setattr(planner.bounded_sql, "_clipped", lambda part, *_: f"COALESCE({part}, 0)")
    assert caught(clinics, CLIPS)


def test_an_order_that_depends_on_other_patients_is_found(
    clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = Printer._scan

    def by_all(self: Printer, scan: Scan) -> str:
        printed = true(self, scan)
        others = f'(SELECT COUNT(*) FROM "{scan.table}")'
        return printed.replace('"__rank" <=', f'("__rank" + {others}) % 23 <')

    monkeypatch.setattr(Printer, "_scan", by_all)
    assert caught(clinics, (*COUNTS, *SUMS))


@pytest.mark.parametrize("target", ["_first_of_unit", "_clipped"])
def test_forgotten_group_limits_and_clips_are_found(
    target: str, clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: dict[str, Callable[..., str]] = {
        "_first_of_unit": lambda body, *_: body,
        "_clipped": lambda part, *_: f"COALESCE({part}, 0)",
    }
    monkeypatch.setattr(planner.bounded_sql, target, forgotten[target])
    sqls = ("SELECT diagnosis, COUNT(*) FROM visits WHERE los >= 0 GROUP BY 1", CLIPS[0],
            "SELECT COUNT(DISTINCT a.diagnosis) FROM visits a JOIN visits b USING (patient_id)")
    assert caught(clinics, sqls)


def test_a_join_of_two_patients_is_found(
    clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = Printer._join
    monkeypatch.setattr(Printer, "_join",
                        lambda self, join: true(self, replace(join, tie=False)))
    assert caught(clinics, ["SELECT COUNT(*) FROM labs JOIN visits USING (visit_id)",
                            "SELECT COUNT(*) FROM visits a JOIN visits b USING (visit_id)"])


def test_a_test_of_other_patients_is_found(
    clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = Printer._mark

    def untied(self: Printer, node: Mark) -> str:
        return true(self, replace(node, tie=False))

    monkeypatch.setattr(Printer, "_mark", untied)
    sql = ("SELECT COUNT(*) FROM patients p WHERE EXISTS (SELECT 1 FROM visits v "
           "WHERE v.patient_id = p.patient_id AND v.diagnosis = 'T')")
    assert caught(clinics, [sql])


def test_a_forgotten_one_row_per_key_is_found(
    clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = Printer._scan
    monkeypatch.setattr(Printer, "_scan",
                        lambda self, scan: true(self, replace(scan, one_per_key=None)))
    assert caught(clinics, ["SELECT COUNT(*) FROM labs JOIN visits USING (visit_id)"])


def test_a_window_across_patients_is_found(
    clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    true = Printer._window
    total = clinics["base"].query("SELECT COUNT(*) FROM visits", epsilon=float("inf")).rows[0][0]
    sql = ("SELECT COUNT(*) FROM (SELECT COUNT(*) OVER (PARTITION BY patient_id) AS s "
           f"FROM visits) AS t WHERE s > {total}")
    assert caught(clinics, [sql]) == []
    monkeypatch.setattr(Printer, "_window", lambda self, node: true(self, node).replace(
        f'PARTITION BY "__u_{node.input.source}"', "PARTITION BY 1"))
    assert caught(clinics, [sql])


def test_a_key_wrongly_believed_constant_within_a_patient_is_found(
    clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was a real bug: a condition in ON splits a patient's rows over NULL and his own value."""
    sql = ("SELECT p.sex, COUNT(DISTINCT v.patient_id) FROM visits v LEFT JOIN patients p "
           "ON v.patient_id = p.patient_id AND v.los > 5 GROUP BY p.sex")
    assert caught(clinics, [sql]) == []
    monkeypatch.setattr(planner.joins, "is_per_unit", lambda expression: True)
    assert caught(clinics, [sql])
