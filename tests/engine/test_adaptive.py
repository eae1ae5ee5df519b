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
from planner.bounded_sql import race_grid
from planner.bounding import Shape
from planner.domain import integer
from planner.pilot import Bounds
from planner.price import remaining
from planner.relation import Aggregate
from planner.truncation import believed, clip_of
from tests.engine.replay import CHANGES, Run, replayed, violations

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
    assert narrow < wide / 4


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
        Refused, match="'auto', 'declared' or 'race'"
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
    """A planted leak: each side's own exact pilot chooses, and the plan differs."""
    base = clinics["base"]
    for sql in LEAKY:
        one = replayed(base, sql, bounds=Bounds.AUTO)
        leaky = replayed(base, sql, like=replace(one, pilots=unnoised(base, sql)),
                         bounds=Bounds.AUTO)
        found = []
        for change in ("without the heavy patient", "with a greedy patient", "with a thief"):
            other = clinics[change]
            assert list(violations(one, replayed(other, sql, like=one, bounds=Bounds.AUTO))) == []
            own = replace(one, pilots=unnoised(other, sql))
            found += violations(leaky, replayed(other, sql, like=own, bounds=Bounds.AUTO))
        assert found != []


LEAKY = ("SELECT department, SUM(cost) FROM visits GROUP BY department",
         "SELECT department, SUM(cost), COUNT(*) FROM visits GROUP BY department",
         "SELECT AVG(cost) FROM visits")


def unnoised(engine: Engine, sql: str) -> dict[str, tuple[float, ...]]:
    """Return the pilots as if no noise had been paid for: large next to their stated noise."""
    run = replayed(engine, sql, bounds=Bounds.AUTO)
    return {column.key: tuple(300.0 * x for x in _dense(column, vector))
            for _, column, vector in run.vectors if column.key in run.pilots}


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


def test_what_has_no_clip_keeps_its_own_bounds(clinics: dict[str, Engine]) -> None:
    """A quantile takes few rows of a patient, however many suit the count beside it."""
    for sql in ("SELECT COUNT(*), MEDIAN(value) FROM labs",
                "SELECT diagnosis, COUNT(*) FROM visits GROUP BY diagnosis"):
        own = replayed(clinics["base"], sql).plan.releases[-1].bounded
        found = replayed(clinics["base"], sql, bounds=Bounds.AUTO).plan.releases[-1].bounded
        for before, after in zip(own.measures, found.measures, strict=True):
            if before.measure.aggregate is not Aggregate.COUNT:
                assert after == before
        assert found.selection == own.selection


def test_a_question_stays_free_after_a_better_pilot(policy: Path) -> None:
    """The clip of a question must not move with what others ask, or asking again would cost."""
    sql = "SELECT SUM(visits) FROM people"
    with Engine.open(policy) as engine:
        first = engine.query(sql, epsilon=0.01)  # its pilot sees hardly anything
        engine.query("SELECT AVG(visits) FROM people", epsilon=4)  # and this one everything
        spent = engine.budget().spent
        again = engine.query(sql, epsilon=0.01)
        assert again.cached
        assert again.rows == first.rows
        assert engine.budget().spent == spent


# ---- a patient's total ---------------------------------------------------------------------

TOTALS = ("SELECT SUM(cost) FROM visits", "SELECT SUM(los - 30) FROM visits",
          "SELECT department, SUM(cost) FROM visits GROUP BY department",
          "SELECT p.sex, SUM(v.cost), SUM(v.los) FROM visits v JOIN patients p USING (patient_id) "
          "GROUP BY p.sex",
          "SELECT diagnosis, SUM(cost) FROM visits WHERE los > 3 GROUP BY diagnosis",
          "SELECT department, SUM(-cost) FILTER (WHERE readmitted) FROM visits GROUP BY 1",
          "SELECT department, SUM(cost), COUNT(*), AVG(los) FROM visits GROUP BY department")


@pytest.mark.parametrize("sql", TOTALS)
def test_no_patient_moves_a_sum_by_more_than_the_clip_of_his_total(
    sql: str, clinics: dict[str, Engine]
) -> None:
    """Under clips so narrow that most patients are scaled down, each neighbour and each sum."""
    base = clinics["base"]
    first = replayed(base, sql, bounds=Bounds.AUTO)
    for most in (2, 6, 11):
        narrow = replace(first, pilots={
            key: tuple(1e6 if place == most else 0.0 for place in range(len(counts)))
            for key, counts in first.pilots.items()
        })
        one = replayed(base, sql, like=narrow, bounds=Bounds.AUTO)
        main = [c for _, c, _ in one.vectors if c.bounded.strategy.shape is Shape.UNIT_TOTAL]
        assert main
        assert all(column.l1 == column.grid.largest for column in main)
        for change in CHANGES:
            two = replayed(clinics[change], sql, like=narrow, bounds=Bounds.AUTO)
            assert list(violations(one, two)) == [], change


def test_a_patient_with_many_rows_keeps_what_the_clip_allows(clinics: dict[str, Engine]) -> None:
    """The heavy patient alone is scaled: the sum falls by exactly what is over the clip."""
    sql = "SELECT SUM(cost) FROM visits"
    first = replayed(clinics["base"], sql, bounds=Bounds.AUTO)
    (places,) = {len(counts) for counts in first.pilots.values()}
    # The last bin ends at 400,000 = 20 rows of 20,000; the heavy patient has 70 rows of about that.
    wide = replace(first, pilots={
        key: tuple(1e6 if place == places - 1 else 0.0 for place in range(places))
        for key in first.pilots
    })
    run = replayed(clinics["base"], sql, like=wide, bounds=Bounds.AUTO)
    column, vector = next((c, v) for _, c, v in run.vectors if c.key not in run.pilots)
    with_clip = vector[()] * column.grid.step
    exact = "SELECT patient_id, SUM(cost) AS s FROM visits GROUP BY patient_id"
    sums = clinics["base"].query(
        f"SELECT SUM(s), SUM(LEAST(s, 400000)) FROM ({exact}) AS t", epsilon=math.inf
    ).rows[0]
    assert sums[0] > sums[1]
    assert with_clip == pytest.approx(float(sums[1]), abs=1.0)


def test_only_sums_are_limited_by_totals(policy: Path, clinics: dict[str, Engine]) -> None:
    asked = {"SELECT SUM(cost) FROM visits": True,
             "SELECT department, SUM(cost), COUNT(*) FROM visits GROUP BY 1": True,
             "SELECT department, SUM(cost) / COUNT(*) FROM visits GROUP BY 1": False,
             "SELECT SUM(cost) / COUNT(*), SUM(cost) / SUM(los) FROM visits": False,
             "SELECT SUM(cost) FROM visits HAVING SUM(cost) > 9 * COUNT(*)": False,
             "SELECT department, SUM(cost) / COUNT(*) FROM visits GROUP BY ROLLUP (1)": False,
             "SELECT SUM(cost) / SUM(los) FROM visits": True,
             "SELECT AVG(cost) FROM visits": False,
             "SELECT SUM(cost), AVG(cost) FROM visits": True,
             "SELECT SUM(cost), COUNT(DISTINCT patient_id) FROM visits": True}
    for sql, totals in asked.items():
        plan = clinics["base"].explain(sql, epsilon=1, bounds="auto")
        assert any("totals of" in r.name for r in plan.releases) is totals, sql
    fixed = clinics["base"].explain("SELECT SUM(cost) FROM visits", rows=3, bounds="auto")
    assert not any("totals of" in r.name for r in fixed.releases)  # the caller chose the rows
    with Engine.open(policy, insecure_testing=True, seed=1) as engine:
        plan = engine.explain("SELECT SUM(visits) FROM people")
        assert not any("totals of" in r.name for r in plan.releases)  # a row is the total


def test_a_large_epsilon_overflows_nothing(clinics: dict[str, Engine]) -> None:
    """A grid so fine that products of parts and clip would not fit is brought down."""
    for epsilon in (1e3, 1e5):
        rows = clinics["base"].query("SELECT department, SUM(cost) FROM visits GROUP BY 1",
                                     epsilon=epsilon, bounds="auto").rows
        assert all(0 <= row[1] < 1e8 for row in rows)


def test_totals_far_out_are_believed_where_they_stand_out() -> None:
    """An empty bin that noise lifts a little is none; beside a certain one less is enough."""
    seen = Histogram(((1, 900.0), (2, 400.0), (3, 25.0), (4, 30.0), (5, 3.0), (6, 26.0)), 10.0)
    assert believed(seen) == ((1, 900.0), (2, 400.0), (3, 25.0), (4, 25.0))
    assert believed(Histogram(((1, 20.0), (2, 30.0), (3, -9.0)), 10.0)) == ()
    domain = integer(0, 32, nullable=False)
    assert clip_of(seen, domain, 1.0) == 8.0
    assert clip_of(seen, domain, 60.0) == 2.0
    assert clip_of(Histogram(((1, 20.0), (6, 30.0)), 10.0), domain, 1.0) == 32.0


# ---- clips for single groups ---------------------------------------------------------------

BY_SEX = ("SELECT p.sex, SUM(v.cost) FROM visits v JOIN patients p USING (patient_id) "
          "GROUP BY p.sex")


def with_clips(run: Run, bins: tuple[int, ...]) -> Run:
    """Return a run whose pilot shows many patients in one bin for each group, and no others."""
    pilots = {}
    for key, counts in run.pilots.items():
        width = len(counts) // len(bins)
        pilots[key] = tuple(1e6 if place == bin_ else 0.0
                            for bin_ in bins for place in range(width))
    return replace(run, pilots=pilots)


@pytest.mark.parametrize("bins", [(16, 20, 30), (30, 15, 21), (11, 11, 10)])
def test_no_patient_moves_a_group_by_more_than_its_own_clip(
    bins: tuple[int, ...], clinics: dict[str, Engine]
) -> None:
    """Each group is told in units in which its clip is the same whole number."""
    first = replayed(clinics["base"], BY_SEX, bounds=Bounds.AUTO)
    narrow = with_clips(first, bins)
    one = replayed(clinics["base"], BY_SEX, like=narrow, bounds=Bounds.AUTO)
    (column,) = [c for _, c, _ in one.vectors if c.bounded.strategy.shape is Shape.UNIT_TOTAL]
    shifts = dict(column.bounded.strategy.shifts)
    assert sorted(shifts.values())[0] == 0
    assert len(set(shifts.values())) == len(set(bins))
    for change in CHANGES:
        two = replayed(clinics[change], BY_SEX, like=narrow, bounds=Bounds.AUTO)
        assert list(violations(one, two)) == [], change


def test_each_group_is_clipped_where_its_own_clip_says(clinics: dict[str, Engine]) -> None:
    first = replayed(clinics["base"], BY_SEX, bounds=Bounds.AUTO)
    run = replayed(clinics["base"], BY_SEX, like=with_clips(first, (22, 25, 31)),
                   bounds=Bounds.AUTO)
    column, vector = next((c, v) for _, c, v in run.vectors if c.key not in run.pilots)
    strategy = column.bounded.strategy
    step = race_grid(column.grid, strategy.truncations).step
    sums = "SELECT patient_id, SUM(cost) AS s FROM visits GROUP BY patient_id"
    for key, shift in strategy.shifts:
        clip = column.grid.largest * 2**shift * step
        exact = clinics["base"].query(
            f"SELECT p.sex, SUM(LEAST(t.s, {clip})) FROM patients p JOIN ({sums}) AS t "
            "USING (patient_id) GROUP BY p.sex", epsilon=math.inf)
        truth = {row[:1]: row[1] for row in exact.rows}
        assert vector[key] * 2**shift * step == pytest.approx(truth[key], rel=1e-4)


UNEQUAL = """
discreet: 1
database: people.duckdb
ledger: ledger.sqlite
budget: {epsilon: 50.0, delta: 1e-6}
unit: people.person
tables:
  people:
    one_row_per_unit: true
    columns:
      person: unit
      ward: {category: [a, b], not_null: true}
  bills:
    rows_per_unit: 10
    columns:
      person: {references: people}
      cost: {real: [0, 100000], not_null: true, loose: true}
"""
BY_WARD = "SELECT p.ward, SUM(b.cost) FROM bills b JOIN people p USING (person) GROUP BY p.ward"


@pytest.fixture
def unequal(tmp_path: Path) -> Path:
    """3,000 patients; those of ward b cost 200 times as much as those of ward a."""
    with duckdb.connect(str(tmp_path / "people.duckdb")) as c:
        c.execute("CREATE TABLE people AS SELECT i AS person, if(i % 2 = 0, 'a', 'b') AS ward "
                  "FROM range(3000) t(i)")
        c.execute("CREATE TABLE bills AS SELECT i // 5 AS person, "
                  "if(i // 5 % 2 = 0, 10, 2000) + i % 7 + 0.0 AS cost FROM range(15000) t(i)")
    (tmp_path / "people.yaml").write_text(UNEQUAL)
    return tmp_path / "people.yaml"


def test_a_group_with_small_values_has_the_noise_of_small_values(unequal: Path) -> None:
    with duckdb.connect(str(unequal.parent / "people.duckdb"), read_only=True) as c:
        truth = {ward: float(total) for ward, total in c.execute(
            "SELECT ward, SUM(cost) FROM bills JOIN people USING (person) GROUP BY 1").fetchall()}
    errors: dict[str, list[float]] = {"a": [], "b": []}
    inside = 0
    with Engine.open(unequal, insecure_testing=True, seed=2) as engine:
        for _ in range(20):
            result = engine.query(BY_WARD, epsilon=0.5)
            for (ward, total), (_, (low, high)) in zip(result.rows, result.intervals, strict=True):
                errors[ward].append(total / truth[ward] - 1)
                inside += low <= truth[ward] <= high
    # The clip of ward b, 12,500, would give ward a a deviation of half of all that it costs.
    assert sorted(map(abs, errors["a"]))[10] < 0.05
    assert math.fsum(e * e for e in errors["b"]) / 20 < 0.03**2
    assert inside >= 30


def test_clips_of_groups_are_priced_kept_and_combined(unequal: Path) -> None:
    with Engine.open(unequal) as engine:
        told = engine.explain(BY_WARD, epsilon=0.5)
        first = engine.query(BY_WARD, epsilon=0.5)
        assert told.cost == first.cost == engine.budget().spent
        assert any("group by group" in word for word in first.plan.chosen)
        widths = {row[0]: high - low for row, (_, (low, high)) in
                  zip(first.rows, first.intervals, strict=True)}
        assert widths["a"] < widths["b"] / 16
        again = engine.query(BY_WARD, epsilon=0.5)
        assert again.cached
        assert (again.rows, again.intervals) == (first.rows, first.intervals)


def test_a_rollup_has_one_clip_for_all_its_groups(unequal: Path) -> None:
    """Its total adds up numbers of one noise."""
    sql = BY_WARD.replace("GROUP BY p.ward", "GROUP BY ROLLUP (p.ward)")
    with Engine.open(unequal, insecure_testing=True, seed=2) as engine:
        result = engine.query(sql, epsilon=0.5)
        assert not any("group by group" in word for word in result.plan.chosen)
        assert len(result.rows) == 3
