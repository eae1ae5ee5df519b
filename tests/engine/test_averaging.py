"""Averages in which a patient weighs as much as a pilot chose: accuracy, price, bounds, leaks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import duckdb
import numpy as np
import pytest

import planner.bounded_sql
import planner.bounding
from engine import Engine
from engine.api import Settings
from engine.execution import open_unpaid
from engine.releases import fill
from mechanisms.curve import epsilon_of
from mechanisms.event import GaussianEvent, PureEvent
from mechanisms.gaussian import rho
from mechanisms.randomness import Randomness
from planner.averaging import weights_of
from planner.bounding import Cap, Strategy, bound_averages
from planner.pilot import Bounds
from planner.price import (
    Mechanism,
    NoisePlan,
    PricedRelease,
    adapted,
    answer_keys,
    remaining,
)
from planner.relation import Measure
from tests.engine.replay import CHANGES, Run, replayed, violations

PATIENTS = 3_000
POLICY = """
discreet: 1
database: ward.duckdb
ledger: ledger.sqlite
budget: {epsilon: 100.0, delta: 1e-5}
defaults: {rows_per_unit: 20, max_rows_per_unit: 200}
unit: people.person
tables:
  people:
    one_row_per_unit: true
    columns: {person: unit}
  visits:
    columns:
      person: {references: people}
      ward: {category: [a, b, c, d], not_null: true}
      cost: {real: [0, 20000], not_null: true}
      pressure: {real: [0, 300]}
"""
BY_WARD = "SELECT ward, AVG(cost) FROM visits GROUP BY ward"


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Costs with a heavy tail, and blood pressures near 130 whose bounds end far from it."""
    folder = tmp_path_factory.mktemp("ward")
    chance = np.random.default_rng(4)
    person = np.repeat(np.arange(PATIENTS), np.minimum(chance.geometric(0.12, PATIENTS), 90))
    n = len(person)
    own = {
        "person": person, "ward": chance.integers(0, 4, n),
        "cost": np.minimum(np.exp(chance.normal(6.4, 1.0, n)), 20_000),
        "pressure": np.clip(chance.normal(130, 15, n), 0, 300),
    }
    with duckdb.connect(str(folder / "ward.duckdb")) as c:
        c.execute(f"CREATE TABLE people AS SELECT i AS person FROM range({PATIENTS}) t(i)")
        c.register("own", {name: np.asarray(values) for name, values in own.items()})
        c.execute("CREATE TABLE visits AS SELECT person, substr('abcd', ward + 1, 1) AS ward, "
                  "cost, pressure FROM own")
    (folder / "ward.yaml").write_text(POLICY)
    return folder / "ward.yaml"


def truth(ward: Path, sql: str) -> dict[object, float]:
    with duckdb.connect(str(ward.parent / "ward.duckdb"), read_only=True) as c:
        return {row[0]: float(row[1]) for row in c.execute(sql).fetchall()}


# ---- accuracy ------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["cost", "pressure"])
def test_averages_are_better_and_their_intervals_hold(ward: Path, column: str) -> None:
    sql = f"SELECT ward, AVG({column}) FROM visits GROUP BY ward"
    exact = truth(ward, sql)
    errors: dict[str, list[float]] = {"declared": [], "auto": []}
    held = 0
    with Engine.open(ward, insecure_testing=True, seed=3) as engine:
        for bounds, found in errors.items():
            for _ in range(10):
                result = engine.query(sql, epsilon=1, bounds=bounds)
                found += [mean / exact[name] - 1 for name, mean in result.rows]
                if bounds == "auto":
                    held += sum(low <= exact[row[0]] <= high for row, (_, (low, high)) in
                                zip(result.rows, result.intervals, strict=True))
    wide, narrow = (math.fsum(e * e for e in errors[b]) for b in ("declared", "auto"))
    assert narrow < wide / 4
    assert held >= 28  # of 40; at 95 % each, fewer happen once in 10^7 times


def test_sum_and_count_are_weighed_as_the_plan_says(ward: Path) -> None:
    """The statement against the same weights worked out in numpy."""
    with Engine.open(ward, insecure_testing=True, seed=3) as engine:
        run = _as_if(engine, BY_WARD, replayed(engine, BY_WARD, bounds=Bounds.AUTO), 6, 52)
    with duckdb.connect(str(ward.parent / "ward.duckdb"), read_only=True) as c:
        own = c.execute("SELECT person, ascii(ward) - 97 AS ward, cost FROM visits").fetchnumpy()
    measure, count = chosen(run).measures
    strategy, grid = measure.bounded.strategy, measure.grid
    rest = own["cost"] - measure.bounded.measure.center
    parts = np.zeros((PATIENTS, 4))
    np.add.at(parts, (own["person"], own["ward"]), rest)
    rows = np.bincount(own["person"], minlength=PATIENTS)
    weight = np.minimum(1, strategy.rows / np.maximum(rows, 1))
    weight = np.minimum(weight, measure.l1 * grid.step / np.abs(parts).sum(axis=1).clip(1e-9))
    assert 0.05 < np.mean(weight < 1) < 0.95
    sums, counts = run.vectors[-2][2], run.vectors[-1][2]
    for i, key in enumerate(("a", "b", "c", "d")):
        one = own["ward"] == i
        total = sums[key,] * grid.step
        assert total == pytest.approx(np.sum((weight[own["person"]] * rest)[one]), rel=2e-3)
        rows_kept = counts[key,] * count.grid.step
        assert rows_kept == pytest.approx(np.sum(weight[own["person"]][one]), rel=2e-3)
    assert count.l1 * count.grid.step == strategy.rows


# ---- price ---------------------------------------------------------------------------------


def chosen(run: Run) -> PricedRelease:
    return next(r for r in run.plan.releases if r.bounded.release.source > 0)


@pytest.mark.parametrize(
    ("mechanism", "curved"),
    [(Mechanism.LAPLACE, False), (Mechanism.GAUSSIAN, False), (Mechanism.GAUSSIAN, True)],
)
def test_every_choice_costs_what_was_charged(
    ward: Path, mechanism: Mechanism, curved: bool
) -> None:
    """Column by column as Laplace noise and all together as Gaussian noise, for any pilot."""
    sql = "SELECT ward, AVG(cost), AVG(pressure) FROM visits GROUP BY ward"
    with Engine.open(ward, insecure_testing=True, seed=3) as engine:
        settings = Settings(1, 1e-6, None, bounds=Bounds.AUTO)
        _, plan = engine._plan(sql, settings, engine._data)
    *pilots, planned = plan.releases
    noised = tuple(replace(column, mechanism=mechanism) for column in planned.measures)
    planned = replace(planned, measures=noised)
    plan = replace(plan, terms=replace(plan.terms, mechanism=mechanism, curve=curved),
                   releases=(*pilots, planned))
    plan = remaining(plan, frozenset())
    weights = weights_of(planned.bounded, planned.pilot)
    assert sum(weights) == len(weights) == 4
    for rows, distance in ((2, 40), (6, 55), (15, 61)):
        release = adapted(plan, planned, _answers(plan, rows, distance))
        assert release.bounded.measures[0].strategy.caps
        parts = [(c.l2_squared, c.scale) for c in release.measures]
        if mechanism is Mechanism.LAPLACE:
            for column, weight in zip(release.measures, weights, strict=True):
                assert Fraction(column.l1) / Fraction(column.scale) <= plan.terms.share * weight
                assert PureEvent(plan.terms.share * weight) in plan.events
        else:
            (paid,) = (e for e in plan.events if isinstance(e, GaussianEvent))
            assert rho(tuple(parts)) <= rho(paid.parts)
            most = epsilon_of(paid.parts, paid.delta) + Fraction(1, 2**80)
            assert epsilon_of(tuple(parts), paid.delta) <= most
    assert plan.loss.epsilon <= 1 + 1e-9


def test_explain_says_what_is_weighed(ward: Path) -> None:
    with Engine.open(ward) as engine:
        told = engine.explain(BY_WARD, epsilon=1, bounds="auto")
        assert "mean distance of a patient's cost from 0" in str(told)
        assert "mean distance of a patient's cost from 10000" in str(told)
        result = engine.query(BY_WARD, epsilon=1, bounds="auto")
        assert told.cost == result.cost == engine.budget().spent
        assert "all rows of a patient count" in str(result.plan)
        assert "the distances of cost from" in str(result.plan)
        again = engine.query(BY_WARD, epsilon=1, bounds="auto")
        assert again.cached
        assert again.rows == result.rows
        assert engine.budget().spent == told.cost


def test_another_cap_is_another_answer(ward: Path) -> None:
    """A kept answer is given again only under the center and the caps that it was bought with."""
    with Engine.open(ward, insecure_testing=True, seed=3) as engine:
        _, plan = engine._plan(BY_WARD, Settings(1, 0, None, bounds=Bounds.AUTO), engine._data)
    planned = plan.releases[-1]
    (narrow, wide) = (adapted(plan, planned, _answers(plan, 6, bin_)) for bin_ in (50, 52))
    release, strategy = narrow.bounded, wide.bounded.measures[0].strategy
    assert narrow.measures[0].key != wide.measures[0].key
    (cap,) = strategy.caps
    caps = tuple(Cap(release.measures[0].measure, share) for share in (cap.share, cap.share / 2))
    keys = {
        answer_keys(bound_averages(release, release.release, 6, (each,))) for each in caps
    }
    assert len(keys) == 2


def test_a_pilot_is_asked_with_noise(ward: Path) -> None:
    """Two engines with different noise must not agree on what the pilot said."""
    answers = []
    for seed in (1, 2):
        with Engine.open(ward, insecure_testing=True, seed=seed) as engine:
            data = engine._data
            bound, plan = engine._plan(BY_WARD, Settings(1, 0, None, bounds=Bounds.AUTO), data)
            reader = open_unpaid(plan, data.database, insecure_testing=True)
            _, known = fill(bound, plan, {}, reader, data.public, Randomness.seeded(seed))
            pilots = [c.key for r in plan.releases[:-1] for c in r.measures]
            answers.append([known[key].values for key in pilots])
    assert all(one != other for one, other in zip(*answers, strict=True))


def test_a_count_that_is_read_itself_is_not_weighed(ward: Path) -> None:
    """Its patients would weigh less in it than they are."""
    sql = "SELECT ward, AVG(cost), COUNT(*) FROM visits GROUP BY ward"
    with Engine.open(ward, insecure_testing=True, seed=3) as engine:
        assert "sizes of cost" in str(engine.explain(sql, epsilon=1, bounds="auto"))


def test_a_drowned_pilot_leaves_the_declared_bounds(ward: Path) -> None:
    sql = BY_WARD.replace("GROUP", "WHERE cost > 19999.5 GROUP")
    with Engine.open(ward, insecure_testing=True, seed=3) as engine:
        result = engine.query(sql, epsilon=0.01, bounds="auto")
        assert result.plan.chosen == ("the pilot shows too little: the declared bounds stay",)


# ---- neighbours ------------------------------------------------------------------------------


WEIGHED = (
    "SELECT AVG(cost) FROM visits", "SELECT department, AVG(cost) FROM visits GROUP BY 1",
    "SELECT department, AVG(los), AVG(cost) FROM visits GROUP BY department",
    "SELECT diagnosis, AVG(cost) FROM visits WHERE los > 2 GROUP BY diagnosis",
    "SELECT test, AVG(value - 100) FROM labs JOIN visits USING (visit_id) GROUP BY test",
    "SELECT sex, AVG(cost) FILTER (WHERE readmitted) FROM visits JOIN patients "
    "USING (patient_id) GROUP BY sex",
)
TIGHT = ((4, 30), (7, 58))


def _answers(plan: NoisePlan, rows: int, distance: int) -> Mapping[str, tuple[float, ...]]:
    """Return pilot answers that a release might have given: all patients in one bin."""
    found = {}
    for release in plan.releases:
        for column in release.measures:
            if release.bounded.release.source < 0 and column.bounded.measure.argument is not None:
                members = column.bounded.measure.argument.domain.members() or ()
                is_rows = 0 in members
                wanted = rows if is_rows else distance
                found[column.key] = tuple(1e7 if m == wanted else 0.0 for m in members)
    return found


def _as_if(engine: Engine, sql: str, like: Run, rows: int, distance: int) -> Run:
    """Replay a question under bounds that other pilot answers, as public as any, would choose."""
    pilots = {k: v for k, v in _answers(like.plan, rows, distance).items() if k in like.pilots}
    return replayed(engine, sql, like=replace(like, pilots=pilots), bounds=Bounds.AUTO)


def wrong(clinics: dict[str, Engine], sql: str, rows: int, distance: int) -> list[str]:
    like = replayed(clinics["base"], sql, bounds=Bounds.AUTO)
    one = _as_if(clinics["base"], sql, like, rows, distance)
    assert chosen(one).bounded.measures[0].strategy.caps
    return [f"{change}: {words}" for change in CHANGES for words in violations(
        one, _as_if(clinics[change], sql, like, rows, distance)
    )]


@pytest.mark.parametrize(("rows", "distance"), TIGHT)
@pytest.mark.parametrize("sql", WEIGHED)
def test_one_patient_weighs_no_more_than_stated(
    sql: str, rows: int, distance: int, clinics: dict[str, Engine]
) -> None:
    assert wrong(clinics, sql, rows, distance) == []


def test_the_stated_weight_is_reached(clinics: dict[str, Engine]) -> None:
    """A stated sensitivity that nobody comes near would cost accuracy."""
    sql = WEIGHED[0]
    like = replayed(clinics["base"], sql, bounds=Bounds.AUTO)
    one, two = (_as_if(clinics[name], sql, like, 4, 52) for name in
                ("base", "with a greedy patient"))
    for (_, column, a), (_, _, b) in list(zip(one.vectors, two.vectors, strict=True))[-2:]:
        apart = abs(a[()] - b[()])
        assert apart <= column.l1
        if column.bounded.measure.argument is not None:
            assert apart > 0.9 * column.l1


@pytest.mark.parametrize("bug", ["no cap", "no rows", "halved cap", "parts of any sign"])
def test_a_patient_who_weighs_more_than_stated_is_found(
    bug: str, clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    if bug == "halved cap":
        true = Strategy.sensitivity

        def halved(self: Strategy, measure: Measure, largest: int) -> tuple[int, int]:
            l1, l2_squared = true(self, measure, largest)
            return max(l1 // 2, 1), max(l2_squared // 4, 1)

        monkeypatch.setattr(Strategy, "sensitivity", halved)
    else:
        scaling = planner.bounded_sql._by_scaling

        def planted(*given: object) -> str:
            sql = scaling(*given)  # type: ignore[arg-type]
            if bug == "no cap":
                return re.sub(r"GREATEST\((SUM\(n\) \* \d+), .*?\) AS total", r"\1 AS total", sql)
            if bug == "no rows":
                return re.sub(r"GREATEST\(SUM\(n\) \* \d+, ", "GREATEST(1, ", sql)
            return sql.replace("ABS(", "(")

        monkeypatch.setattr(planner.bounded_sql, "_by_scaling", planted)
    found = [words for sql in WEIGHED[:3] for words in wrong(clinics, sql, 4, 50)]
    assert any("distance" in words for words in found)


def test_a_center_or_cap_from_raw_data_is_found(clinics: dict[str, Engine]) -> None:
    """A planted leak: each side's own exact histograms choose, as if no noise had been paid for."""
    sql = WEIGHED[1]
    base, other = clinics["base"], clinics["with a greedy patient"]
    one, own = (replayed(engine, sql, bounds=Bounds.AUTO) for engine in (base, other))
    assert list(violations(one, replayed(other, sql, like=one, bounds=Bounds.AUTO))) == []
    sides = [
        replayed(engine, sql, like=replace(run, pilots=_exactly(run)), bounds=Bounds.AUTO)
        for engine, run in ((base, one), (other, own))
    ]
    assert any("plan depends on the data" in words for words in violations(*sides))


def _exactly(run: Run) -> dict[str, tuple[float, ...]]:
    """Return what the pilots would say without noise, as if each patient were a thousand."""
    found = {}
    for _, column, vector in run.vectors:
        argument = column.bounded.measure.argument
        if column.key in run.pilots and argument is not None:
            members = argument.domain.members() or ()
            found[column.key] = tuple(1e3 * vector.get((member,), 0) for member in members)
    return found
