"""What queries take from the snapshot as it is: bounds, integers and row counts, all proved."""

from __future__ import annotations

from math import log2
from pathlib import Path

import duckdb
import pytest

import engine.snapshot_sql
import planner.bounded_sql
from engine import Engine
from engine.snapshot import SnapshotError, ensure, secret_from_seed
from engine.snapshot_build import _Build, _check, _check_bounds
from planner.bounded_sql import _stored_sum
from planner.catalog import CatalogColumn, CatalogTable, Kind
from planner.cataloguing import catalog_of
from planner.domain import Type, real
from planner.functions.arithmetic import half_away
from planner.grid import middle_of, stored_ends, stored_unit
from planner.refusal import Refused
from tests.engine.replay import Case, planned, read_cases, replayed, violations
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


NARROWED = [
    ("SELECT SUM(cost) FROM visits WHERE cost < 500", "0", "500"),
    ("SELECT SUM(cost) FROM visits WHERE cost BETWEEN 100 AND 500", "100", "500"),
    ("SELECT AVG(los) FROM visits WHERE los >= 7", "7", "60"),
]


def _statements(sql: str) -> str:
    _, plan = planned(sql, clinic_catalog())
    return " ".join(s.sql for r in plan.releases for s in r.statements)


@pytest.mark.parametrize("sql", AS_STORED)
def test_a_stored_column_is_read_as_it_is(sql: str) -> None:
    printed = _statements(sql)
    assert "GREATEST" not in printed
    assert "CASE" not in printed
    assert "round(" not in printed
    assert '"__grid_cost_' in printed
    assert '"cost_' not in printed  # the DOUBLE is not even read


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


@pytest.mark.parametrize(("sql", "low", "high"), NARROWED)
def test_stored_integers_beyond_narrower_bounds_are_clamped(sql: str, low: str, high: str) -> None:
    """The filter keeps such rows away already; should it fail, the clamp holds by itself."""
    _, plan = planned(sql, clinic_catalog())
    (column,) = [m for r in plan.releases for m in r.measures if m.grid.stored is not None]
    grid, stored = column.grid, column.grid.stored
    assert stored is not None
    name = f'"{stored.column.name}_{stored.column.source}"'
    with duckdb.connect() as c:
        for end, far in zip((*stored.ends, 0), (-(2**53), 2**53, 0), strict=True):
            if end is None:
                continue  # the build proved that end
            found = c.execute(
                f"SELECT {_stored_sum(stored, '')} FROM (SELECT CAST({far} AS BIGINT) AS {name})"
            ).fetchone()
            assert found is not None
            assert grid.low <= found[0] <= grid.high
        nothing = f"SELECT {_stored_sum(stored, '')} FROM (SELECT CAST(NULL AS BIGINT) AS {name})"
        assert c.execute(nothing).fetchone() == (None,)
    center = column.bounded.measure.center
    assert (grid.low * grid.step + center, grid.high * grid.step + center) == (
        float(low), float(high)
    )


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 20000.0), (0.0, 0.1), (-0.3, 0.7), (99.5, 100.5), (-1e-9, 3e-9), (1e6, 1e6 + 1)],
)  # fmt: skip
def test_stored_integers_stand_for_their_values(low: float, high: float) -> None:
    domain = real(low, high, nullable=True)
    unit, ends = stored_unit(domain), stored_ends(domain)
    assert unit is not None
    assert ends is not None
    assert log2(unit).is_integer()
    assert unit <= (high - low) * 2.0**-24
    middle = middle_of((low, high), Type.REAL)
    assert (middle / unit).is_integer()
    assert abs(middle - (low + high) / 2) <= unit
    for share in (0.0, 0.25, 1 / 3, 1.0):
        value = min(high, low + share * (high - low))
        integer = half_away(value / unit)
        assert ends[0] <= integer <= ends[1]
        assert abs(integer * unit - value) <= unit / 2


@pytest.mark.parametrize(
    ("low", "high"),
    [(None, 1.0), (5.0, 5.0), (1e300, 1.7e308), (-1.7e308, 1.7e308), (1e9, 1e9 + 1e-6)],
)
def test_bounds_without_a_usable_unit_have_no_stored_integers(
    low: float | None, high: float
) -> None:
    assert stored_unit(real(low, high, nullable=True)) is None


@pytest.mark.parametrize("case", read_cases("accepted"), ids=str)
def test_units_with_few_rows_count_as_if_clipped(
    case: Case, clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adding up the rows of light units gives the very integers of the strategy."""
    base = clinics["with a greedy patient"]
    for rows in (None, 2):
        try:
            base.explain(case.sql, epsilon=0.5, rows=rows)
        except Refused:
            continue
        run = replayed(base, case.sql, rows)
        if not any('"__n' in s.sql for r in run.plan.releases for s in r.statements):
            continue
        with monkeypatch.context() as patched:
            patched.setattr(planner.bounded_sql, "_light_rows", lambda *_: None)
            plain = replayed(base, case.sql, rows)
        for (_, column, quick), (_, _, slow) in zip(run.vectors, plain.vectors, strict=True):
            assert {k: v for k, v in quick.items() if v} == {k: v for k, v in slow.items() if v}, (
                column.bounded.measure
            )


def test_most_questions_with_conditions_treat_light_units_apart() -> None:
    for sql in (
        "SELECT COUNT(*) FROM visits WHERE cost >= 0",
        "SELECT department, COUNT(*), SUM(cost) FROM visits WHERE cost > 500 GROUP BY department",
        "SELECT p.sex, COUNT(*) FROM visits v JOIN patients p ON v.patient_id = p.patient_id "
        "WHERE v.cost > 500 GROUP BY p.sex",
    ):
        assert '"__n_1" <= 20' in _statements(sql)


@pytest.mark.parametrize("sql", [
    # a patient without visits has a row here, which says nothing of how many visits there are
    "SELECT COUNT(*) FROM patients p LEFT JOIN visits v ON v.patient_id = p.patient_id "
    "WHERE v.cost IS NULL",
    # what a patient has in one branch says nothing of the other
    "SELECT COUNT(*) FROM (SELECT cost FROM visits UNION ALL SELECT cost FROM visits) AS t "
    "WHERE cost > 5",
    # clips and limits of groups are not sums of rows
    "SELECT diagnosis, COUNT(DISTINCT patient_id) FROM visits WHERE los >= 0 GROUP BY diagnosis",
    "SELECT COUNT(DISTINCT diagnosis) FROM visits WHERE los >= 0",
])  # fmt: skip
def test_where_a_tables_row_count_proves_nothing_all_units_are_clipped(sql: str) -> None:
    assert '"__n' not in _statements(sql)


def test_a_limit_for_light_units_that_is_too_high_is_found(
    clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = "SELECT COUNT(*) FROM visits WHERE los >= 0"
    greedy, true = clinics["with a greedy patient"], planner.bounded_sql.at_most
    sound = replayed(clinics["base"], sql)
    assert not list(violations(sound, replayed(greedy, sql, like=sound)))
    monkeypatch.setattr(planner.bounded_sql, "at_most", lambda column, n: true(column, 10 * n))
    wrong = replayed(clinics["base"], sql)
    assert list(violations(wrong, replayed(greedy, sql, like=wrong)))


# __u, __rank, __n of a table whose units count two rows by default: 2 and 5 have more.
SOUND = [
    (1, 1, 1), (3, 1, 2), (3, 2, 2),
    (2, 1, 4), (2, 2, 4), (5, 1, 3), (5, 2, 3),
    (2, 3, 4), (2, 4, 4), (5, 3, 3),
]  # fmt: skip


@pytest.mark.parametrize("rows", [
    [(1, 2, 1)],  # does not begin with 1
    [(1, 1, 2)],  # less rows than it says
    [(1, 1, 1), (1, 2, 1)],  # more rows than it says
    [(1, 1, 2), (1, 1, 2)],  # one rank twice
    [(1, 1, 3), (1, 3, 3), (1, 2, 3)],  # not in order
    [(1, 1, 2), (1, 2, 3), (1, 3, 3)],  # does not agree with itself
    [(1, 1, 1), (1, 1, 3), (1, 2, 3), (1, 3, 3)],  # light and heavy at once
    [(2, 1, 3), (2, 2, 3), (2, 3, 3), (1, 1, 1)],  # heavy before light
    [(2, 1, 3), (2, 2, 3), (5, 1, 3), (5, 2, 3), (5, 3, 3), (2, 3, 3)],  # descending at the end
    [(2, 1, 3), (2, 2, 3), (2, 3, 4), (2, 4, 4)],  # another number further on
    [(2, 1, 3), (2, 2, 3), (2, 3, 3), (2, 3, 3)],
    [(2, 1, 1), (1, 1, 1)],  # descending
    [(1, 1, 1), (2, 1, 1), (1, 1, 1)],  # comes back
    [(1, 1, None)], [(1, None, 1)], [(None, 1, 1)],
])  # fmt: skip
def test_tables_whose_ranks_or_row_counts_are_wrong_are_refused(
    rows: list[tuple[int | None, ...]]
) -> None:
    for good in ([], SOUND):
        _checked(good)
    with pytest.raises(SnapshotError, match="order of their ranks"):
        _checked(rows)


def _checked(rows: list[tuple[int | None, ...]]) -> None:
    with duckdb.connect() as c:
        c.execute("ATTACH ':memory:' AS target")
        c.execute("CREATE TABLE target.visits (__u INTEGER, __rank INTEGER, __n INTEGER)")
        if rows:
            c.executemany("INSERT INTO target.visits VALUES (?, ?, ?)", rows)
        table = CatalogTable("visits", Kind.PROTECTED, (), rows_per_unit=2)
        _check(_Build(c, None, None), table)  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "integer"), [
    ("50.0", "0"), ("50.0", "NULL"), ("NULL", "0"), ("100.0", "round(100.0 / unit) + 1"),
    ("50.0", "round(50.0 / unit) + 1"), ("200.0", "0"),
])  # fmt: skip
def test_integers_that_do_not_stand_for_their_column_are_refused(value: str, integer: str) -> None:
    column = CatalogColumn("cost", real(0.0, 100.0, nullable=True))
    unit = stored_unit(column.domain)
    for kept, holds in (("round(v / unit)", value != "200.0"), (integer, False)):
        with duckdb.connect() as c:
            c.execute("ATTACH ':memory:' AS target")
            c.execute(
                "CREATE TABLE target.visits AS SELECT v AS cost, CAST(" + kept + " AS BIGINT) AS "
                f"__grid_cost FROM (SELECT CAST({value} AS DOUBLE) AS v, {unit!r} AS unit)"
            )
            table = CatalogTable("visits", Kind.PROTECTED, (column,))
            if holds:
                _check_bounds(_Build(c, None, None), table)  # type: ignore[arg-type]
                continue
            with pytest.raises(SnapshotError, match=r"visits\.cost came out"):
                _check_bounds(_Build(c, None, None), table)  # type: ignore[arg-type]
