"""The race to the top: how far a patient moves it, what it shows, and a planted leak."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import planner.bounded_sql
from engine import Engine, Refused
from engine.release import Released
from engine.winner import winners, winning
from mechanisms import laplace
from mechanisms.randomness import Randomness
from planner.bounding import Shape, Strategy
from planner.pilot import Bounds
from planner.price import Mechanism
from tests.engine.replay import CHANGES, replayed, violations

SUMS = ("SELECT SUM(cost) FROM visits",
        "SELECT department, SUM(cost), SUM(los) FROM visits GROUP BY department",
        "SELECT p.sex, SUM(v.los) FROM visits v JOIN patients p USING (patient_id) GROUP BY p.sex",
        "SELECT diagnosis, SUM(cost) FROM visits WHERE los > 3 GROUP BY diagnosis",
        "SELECT SUM(l.value) FROM labs l JOIN visits v USING (visit_id)",
        "SELECT SUM(cost) FROM visits WHERE los < 0")


def raced(clinics: dict[str, Engine], sql: str) -> list[str]:
    """Return what the replay finds on all neighbours."""
    one = replayed(clinics["base"], sql, bounds=Bounds.RACE)
    return [wrong for change in CHANGES
            for wrong in violations(one, replayed(clinics[change], sql, like=one,
                                                  bounds=Bounds.RACE))]


@pytest.mark.parametrize("sql", SUMS)
def test_no_patient_moves_all_truncations_further_than_stated(
    sql: str, clinics: dict[str, Engine]
) -> None:
    assert raced(clinics, sql) == []
    one = replayed(clinics["base"], sql, bounds=Bounds.RACE)
    for _, column, vector in one.vectors:
        if column.bounded.strategy.shape is Shape.RACE:
            count = column.bounded.strategy.rows
            assert column.l1 == count * column.grid.largest
            assert column.l2_squared == count * column.grid.largest**2
            assert {key[-1] for key in vector} <= set(range(count))


def _forgotten(part: str, *_: object) -> str:
    return part


def _cheap(true: Callable[..., tuple[int, int]]) -> Callable[..., tuple[int, int]]:
    """As if one truncation alone were released: the winner, chosen from all of them."""

    def sensitivity(self: Strategy, measure: Any, largest: int) -> tuple[int, int]:
        return (largest, largest**2) if self.shape is Shape.RACE else true(self, measure, largest)

    return sensitivity


def test_forgotten_truncations_and_losers_that_cost_nothing_are_found(
    clinics: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted leaks: a race must pay for every truncation, and truncate."""
    with monkeypatch.context() as planted:
        planted.setattr(planner.bounded_sql, "_shared", _forgotten)
        assert raced(clinics, SUMS[0])
    with monkeypatch.context() as planted:
        planted.setattr(Strategy, "sensitivity", _cheap(Strategy.sensitivity))
        assert raced(clinics, SUMS[0])
    assert raced(clinics, SUMS[0]) == []


# ---- what is shown -------------------------------------------------------------------------


def test_a_race_is_priced_explained_and_kept(kept_engine: Engine) -> None:
    sql = "SELECT department, SUM(cost) AS s FROM visits GROUP BY department"
    plan = kept_engine.explain(sql, epsilon=2, bounds="race")
    assert [r.strategy for r in plan.releases] == ["race to the top"]
    assert "20 totals" in str(plan)
    result = kept_engine.query(sql, epsilon=2, bounds="race")
    assert result.cost == plan.cost == kept_engine.budget().spent
    assert result.cost.epsilon <= 2 + 1e-9
    assert any("was won by" in word for word in result.plan.chosen)
    for row, (_, (low, high)) in zip(result.rows, result.intervals, strict=True):
        assert 0 <= low <= row[1] <= high
    again = kept_engine.query(sql, epsilon=2, bounds="race")
    assert again.cached
    assert (again.rows, again.plan.chosen) == (result.rows, result.plan.chosen)
    having = kept_engine.query(sql + " HAVING SUM(cost) > 0 ORDER BY s DESC LIMIT 3", epsilon=2,
                               bounds="race")
    assert having.cached
    assert set(having.rows) <= set(result.rows)


@pytest.fixture
def kept_engine(base_path: Any, tmp_path: Any) -> Any:
    from engine.clinic import clinic_policy

    (tmp_path / "clinic.duckdb").write_bytes(base_path.read_bytes())
    (tmp_path / "clinic.yaml").write_text(clinic_policy(tmp_path / "clinic.duckdb", epsilon=50.0))
    with Engine.open(tmp_path / "clinic.yaml") as engine:
        yield engine


@pytest.mark.parametrize("sql", [
    "SELECT COUNT(*) FROM visits", "SELECT AVG(cost) FROM visits",
    "SELECT SUM(cost), COUNT(*) FROM visits", "SELECT SUM(los - 30) FROM visits",
    "SELECT department, SUM(cost) FROM visits GROUP BY ROLLUP (department)",
])
def test_what_has_no_race_is_refused(sql: str, base: Engine) -> None:
    with pytest.raises(Refused, match="no race to the top") as refusal:
        base.query(sql, epsilon=1, bounds="race")
    assert refusal.value.rule == "bounds"


def test_without_noise_the_widest_truncation_is_the_declared_bound(base: Engine) -> None:
    """Its numbers are those of a clip of each patient's total at 20 rows of 20,000."""
    sql = "SELECT SUM(cost) FROM visits"
    run = replayed(base, sql, bounds=Bounds.RACE)
    (_, column, vector), = run.vectors
    count, step = column.bounded.strategy.rows, column.grid.step
    sums = "SELECT patient_id, SUM(cost) AS s FROM visits GROUP BY patient_id"
    for j in range(count):
        clip = 400_000 / 2 ** (count - 1 - j)
        exact = base.query(f"SELECT SUM(LEAST(s, {clip})) FROM ({sums}) AS t", epsilon=math.inf)
        unit = step / 2 ** (count - 1 - j)  # each patient's part is rounded down to one
        assert found_within(vector[(j,)] * unit, exact.rows[0][0], 30 * unit)


def found_within(found: float, exact: float, rounding: float) -> bool:
    return exact - rounding - 1 <= found <= exact + 1


def test_the_interval_of_a_race_holds_whatever_the_tail() -> None:
    """2,000 races over sums that a few patients carry, at 95 %: each end is wrong in 2.5 %."""
    count, scale, runs = 12, 1000.0, 2_000
    totals = [3.0] * 400 + [900.0] * 5
    clipped = [sum(min(t, 2.0**j) for t in totals) for j in range(count)]
    chance = Randomness.seeded(4)
    noise = laplace.sample(scale * count, runs * count, chance)
    # A truncation is told in units of 2^j / 1000 here.
    exact = [round(1000 * clipped[j] / 2**j) for j in range(count)]
    values = tuple(exact[i % count] + int(z) for i, z in enumerate(noise))
    keys = tuple((i,) for i in range(runs))
    released = Released(keys, values, Mechanism.LAPLACE, scale * count, 0.001, count)
    found = winners(released, 0.95)
    truth = sum(totals)
    above = sum(low > truth for _, low, _ in found)
    below = sum(high < truth for _, _, high in found)
    # At 2.5 % each, 50 are expected and 90 happen less than once in 10^6 times.
    assert above <= 90
    assert 15 <= below <= 90
    assert all(low <= value <= high for value, low, high in found)
    # Without the fine the lower end would often be too high: the test can tell.
    largest = [max(2**j * n for j, n in enumerate(values[i * count : (i + 1) * count])) / 1000
               for i in range(runs)]
    assert sum(n > truth for n in largest) > 90
    assert 0 <= min(winning(released, 0.95)) <= max(winning(released, 0.95)) < count


def test_a_winner_that_hides_its_losers_is_not_what_is_charged(base: Engine) -> None:
    """All truncations are released, in the plan's own words: their number is in the price."""
    plan = base.explain("SELECT SUM(cost) FROM visits", epsilon=1, bounds="race")
    declared = base.explain("SELECT SUM(cost) FROM visits", epsilon=1, bounds="declared")
    assert plan.releases[0].l1 == pytest.approx(20 * 400_000)
    assert plan.cost.epsilon <= declared.cost.epsilon + 1e-9
