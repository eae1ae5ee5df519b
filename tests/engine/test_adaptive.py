"""Bounds that a pilot chooses: what is charged and kept, how good it is, and a planted leak."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from engine import Engine, Refused
from engine.api import Settings
from mechanisms.loss import PrivacyLoss
from planner.adaptive import Histogram
from planner.pilot import Bounds
from planner.price import remaining
from tests.engine.replay import replayed, violations

PEOPLE = 4_000
POLICY = """
discreet: 1
database: people.duckdb
ledger: ledger.sqlite
budget: {epsilon: 20.0, delta: 1e-6}
unit: people.person
tables:
  people:
    one_row_per_unit: true
    columns:
      person: unit
      sex: {category: [F, M], not_null: true}
      visits: {integer: [0, 365], not_null: true, loose: true}
      score: {real: [-1000, 1000], loose: true}
      age: {integer: [0, 120], not_null: true}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """Visits of at most 12 under a declared bound of 365, and scores around 3 within 1,000."""
    with duckdb.connect(str(tmp_path / "people.duckdb")) as c:
        c.execute(
            "CREATE TABLE people AS SELECT i AS person, if(i % 2 = 0, 'F', 'M') AS sex, "
            "CAST(least(i % 13, 12) AS INTEGER) AS visits, "
            f"3 + (i % 5) / 10.0 AS score, CAST(i % 90 AS INTEGER) AS age FROM range({PEOPLE}) t(i)"
        )
    (tmp_path / "people.yaml").write_text(POLICY)
    return tmp_path / "people.yaml"


def truth(policy: Path, expression: str) -> float:
    with duckdb.connect(str(policy.parent / "people.duckdb"), read_only=True) as c:
        return float(c.execute(f"SELECT {expression} FROM people").fetchone()[0])  # type: ignore[index]


@pytest.mark.parametrize("expression", ["SUM(visits)", "AVG(score)", "SUM(score)"])
def test_a_loose_bound_is_replaced_and_the_answer_is_better(policy: Path, expression: str) -> None:
    sql, exact = f"SELECT {expression} FROM people", truth(policy, expression)
    errors: dict[str, list[float]] = {"auto": [], "declared": []}
    with Engine.open(policy, insecure_testing=True, seed=5) as engine:
        for bounds, found in errors.items():
            for _ in range(20):
                result = engine.query(sql, epsilon=1, bounds=bounds)
                found.append(result.rows[0][0] - exact)
    wide, narrow = (math.fsum(e * e for e in errors[b]) for b in ("declared", "auto"))
    assert narrow < wide / 4  # measured: 20 times less and more


def test_the_default_adapts_where_the_policy_says_loose(policy: Path) -> None:
    with Engine.open(policy, insecure_testing=True, seed=5) as engine:
        assert engine.explain("SELECT SUM(visits) FROM people").adapts
        assert not engine.explain("SELECT SUM(visits) FROM people", bounds="declared").adapts
        assert not engine.explain("SELECT SUM(age) FROM people").adapts
        assert engine.explain("SELECT SUM(age) FROM people", bounds="auto").adapts
        assert not engine.explain("SELECT SUM(CLAMP(visits, 0, 20)) FROM people").adapts
        assert not engine.explain("SELECT STDDEV(score) FROM people", bounds="auto").adapts


def test_the_price_is_what_was_asked_and_is_known_before(policy: Path) -> None:
    sql = "SELECT sex, SUM(visits), AVG(score), COUNT(*) FROM people GROUP BY sex"
    with Engine.open(policy) as engine:
        told = engine.explain(sql, epsilon=0.5)
        result = engine.query(sql, epsilon=0.5)
        assert told.adapts
        assert told.cost == result.cost == engine.budget().spent
        assert result.cost.epsilon == pytest.approx(0.5, abs=1e-9)
        assert result.cost.epsilon <= 0.5 + 1e-12
        assert result.plan.chosen
        again = engine.query(sql, epsilon=0.5)
        assert again.cached
        assert again.rows == result.rows
        assert again.cost == PrivacyLoss.zero()
        assert again.plan.chosen == result.plan.chosen


def test_a_kept_pilot_is_not_paid_twice(policy: Path) -> None:
    with Engine.open(policy) as engine:
        engine.query("SELECT SUM(visits) FROM people", epsilon=0.5)
        plan = engine.explain("SELECT AVG(visits) FROM people", epsilon=0.5)
        assert 0 < plan.cost.epsilon <= 0.4 + 1e-9
        assert plan.chosen


def test_the_interval_holds_the_truth_though_values_are_clipped(policy: Path) -> None:
    sql, exact = "SELECT SUM(visits) FROM people", truth(policy, "SUM(visits)")
    inside = 0
    with Engine.open(policy, insecure_testing=True, seed=9) as engine:
        for _ in range(100):
            ((low, high),) = engine.query(sql, epsilon=0.2).intervals[0]
            inside += low <= exact <= high
    assert inside >= 80  # at 95 % each, fewer happen once in 10^8 times


def test_bounds_are_auto_or_declared(policy: Path) -> None:
    with Engine.open(policy, insecure_testing=True, seed=1) as engine, pytest.raises(
        Refused, match="'auto' or 'declared'"
    ):
        engine.query("SELECT SUM(visits) FROM people", bounds="raw")


def test_nothing_seen_leaves_the_declared_bounds(policy: Path) -> None:
    """Where noise drowns the pilot, a narrow interval would be a lie."""
    with Engine.open(policy, insecure_testing=True, seed=1) as engine:
        result = engine.query("SELECT SUM(visits) FROM people WHERE age > 119",
                              epsilon=0.1, bounds="auto")
        assert all("clipped to [0, 365]" in word for word in result.plan.chosen)


def test_a_clip_from_raw_data_would_be_found(
    clinics: dict[str, Engine]
) -> None:
    """A planted leak: the clip is the exact maximum, so the plan differs between neighbours."""
    sql = "SELECT department, SUM(cost) FROM visits GROUP BY department"
    base, other = clinics["base"], clinics["with a greedy patient"]
    one = replayed(base, sql, bounds=Bounds.AUTO)
    assert list(violations(one, replayed(other, sql, like=one, bounds=Bounds.AUTO))) == []
    # The leak: each side's own exact histogram chooses, as if no noise had been paid for.
    own = replayed(other, sql, bounds=Bounds.AUTO)
    exact = {column.key: tuple(float(x) for x in _dense(column, vector))
             for _, column, vector in own.vectors if column.key in one.pilots}
    leaky = replace(one, pilots=exact)
    assert list(violations(one, replayed(other, sql, like=leaky, bounds=Bounds.AUTO))) != []


def _dense(column: object, vector: dict[tuple[object, ...], int]) -> list[int]:
    argument = column.bounded.measure.argument  # type: ignore[attr-defined]
    return [vector.get((member,), 0) for member in argument.domain.members()]


def test_a_bin_counts_only_where_it_stands_out_of_the_noise() -> None:
    seen = Histogram(((1, 100.0), (2, 29.0), (3, -50.0), (4, 30.0)), 10.0)
    assert seen.significant() == ((1, 100.0), (4, 30.0))


def test_equal_sums_that_adapt_apart_are_both_paid(clinics: dict[str, Engine]) -> None:
    """Beside a count a sum may keep other rows of a patient than alone: that is another answer."""
    sql = ("SELECT a.s, b.s, b.n FROM (SELECT SUM(cost) AS s FROM visits) AS a, "
           "(SELECT SUM(cost) AS s, COUNT(*) AS n FROM visits) AS b")
    settings = Settings(0.5, None, None, bounds=Bounds.AUTO)
    engine = clinics["base"]
    _, plan = engine._plan(sql, settings, engine._data)
    adapting = [column for r in plan.releases if r.pilot for column in r.measures]
    pilots = {c.key for r in plan.releases if not r.pilot for c in r.measures}
    assert len(adapting) == 3
    assert len(plan.events) == len(adapting) + len(pilots)
    # A kept answer under the declared bounds pays for none of them.
    assert remaining(plan, frozenset(c.key for c in adapting)).loss == plan.loss
