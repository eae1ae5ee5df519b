"""Columns that queries read without clamping: only those whose bounds the snapshot has proved."""

from __future__ import annotations

from pathlib import Path

import pytest

import engine.snapshot_sql
from engine.snapshot import SnapshotError, ensure, secret_from_seed
from planner.catalog import CatalogColumn
from planner.cataloguing import catalog_of
from planner.functions.arithmetic import half_away
from planner.refusal import Refused
from tests.engine.replay import planned
from tests.engine.test_snapshot import PATIENTS, VISITS, policy_of, source
from tests.planner.clinic import clinic_catalog

AS_STORED = [
    "SELECT SUM(cost) FROM visits",
    "SELECT department, SUM(cost), AVG(cost), COUNT(cost) FROM visits GROUP BY department",
    "SELECT SUM(v.cost) FROM patients p LEFT JOIN visits v ON v.patient_id = p.patient_id",
    "WITH t AS (SELECT cost AS los FROM visits) SELECT SUM(los) FROM t",
]
CLAMPED = [
    "SELECT SUM(CLAMP(cost, 0, 100)) FROM visits",
    "SELECT SUM(cost) FROM visits WHERE cost < 500",
    "SELECT SUM(cost + 1) FROM visits",
    "SELECT SUM(-cost) FROM visits",
    "WITH t AS (SELECT cost * 2 AS cost FROM visits) SELECT SUM(cost) FROM t",
    "SELECT SUM(cost) FROM (SELECT cost FROM visits UNION ALL SELECT cost + 9 FROM visits) AS t",
    "SELECT SUM(cost) FROM (SELECT patient_id, SUM(cost) AS cost FROM visits "
    "GROUP BY patient_id) AS t",
    "SELECT SUM(cost) FROM (SELECT LAG(cost) OVER (PARTITION BY patient_id ORDER BY visit_date) "
    "AS cost FROM visits) AS t",
    "SELECT SUM(r.population) FROM patients p JOIN regions r ON p.region = r.region",
]  # fmt: skip


def _statements(sql: str) -> str:
    _, plan = planned(sql, clinic_catalog())
    return " ".join(s.sql for r in plan.releases for s in r.statements)


@pytest.mark.parametrize("sql", AS_STORED)
def test_a_stored_column_is_read_as_it_is(sql: str) -> None:
    assert "GREATEST" not in _statements(sql)


@pytest.mark.parametrize("sql", CLAMPED)
def test_whatever_was_computed_or_narrowed_is_clamped_twice(sql: str) -> None:
    printed = _statements(sql)
    assert "GREATEST(TRY_CAST(round(" in printed  # as integers
    assert printed.count("GREATEST(") >= 2  # and as numbers


@pytest.mark.parametrize("sql", AS_STORED)
def test_the_grid_reaches_what_its_column_can_hold(sql: str) -> None:
    _, plan = planned(sql, clinic_catalog())
    sums = [m for r in plan.releases for m in r.measures if m.bounded.measure.argument is not None]
    assert sums
    for column in sums:
        measure = column.bounded.measure
        assert measure.argument is not None
        low, high = measure.argument.domain.interval or (0.0, 0.0)
        for value in (low, high):
            integer = half_away((value - measure.center) * (1 / column.grid.step))
            assert column.grid.low <= integer <= column.grid.high
            assert abs(integer) * column.bounded.strategy.rows <= column.l1


@pytest.mark.parametrize("value", ["101", "-1", "'nan'::DOUBLE", "'inf'::DOUBLE"])
def test_a_build_that_does_not_clamp_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    def unclamped(
        column: CatalogColumn, value: str, raw: str
    ) -> tuple[str, tuple[tuple[str, str], ...]]:
        return value, ()

    source(
        tmp_path, "CREATE TABLE patients AS SELECT 1 AS patient_id, 'F' AS sex",
        f"CREATE TABLE visits AS SELECT 1 AS visit_id, 1 AS patient_id, {value} AS cost "
        "UNION ALL SELECT 2, 1, 50",
    )  # fmt: skip
    policy = policy_of(tmp_path, PATIENTS + VISITS)
    ensure(policy, secret=secret_from_seed(7), directory=tmp_path / "kept")
    monkeypatch.setattr(engine.snapshot_sql, "_bounded_number", unclamped)
    with pytest.raises(SnapshotError, match=r"visits\.cost came out with numbers beyond"):
        ensure(policy, secret=secret_from_seed(7), directory=tmp_path / "kept", rebuild=True)
    with pytest.raises(SnapshotError, match=r"visits\.cost"):
        ensure(policy, secret=secret_from_seed(7), directory=tmp_path / "new")


@pytest.mark.parametrize("function", ["MEDIAN", "MIN", "MAX"])
def test_a_width_that_is_no_finite_number_is_refused(tmp_path: Path, function: str) -> None:
    wide = VISITS.replace("[0, 100]", "[-1.7e308, 1.7e308]")
    catalog = catalog_of(policy_of(tmp_path, PATIENTS + wide), ())
    with pytest.raises(Refused, match="bounds that are not too far apart") as caught:
        planned(f"SELECT {function}(cost) FROM visits", catalog)
    assert caught.value.rule == "unbounded"
