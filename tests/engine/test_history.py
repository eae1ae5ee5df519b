"""Earlier answers to the same cells make a new one more exact, and never cheaper or wrong.

The second half attacks: what one learns by asking again and again is within what was charged.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import duckdb
import pytest

import engine.releases
from engine import Engine
from engine.history import combined
from engine.release import Combined, Released, from_payload, to_payload
from mechanisms import laplace
from mechanisms.randomness import Randomness
from planner.price import Mechanism

PEOPLE = 900
POLICY = """
discreet: 1
database: people.duckdb
ledger: ledger.sqlite
budget: {epsilon: 2000.0, delta: 1e-6}
unit: people.person
tables:
  people:
    one_row_per_unit: true
    columns:
      person: unit
      sex: {category: [F, M], not_null: true}
      city: {text: true}
      age: {integer: [0, 120], not_null: true}
"""
COUNTS = "SELECT sex, COUNT(*) FROM people GROUP BY sex"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    with duckdb.connect(str(tmp_path / "people.duckdb")) as c:
        c.execute("CREATE TABLE people AS SELECT i AS person, if(i % 3 = 0, 'F', 'M') AS sex, "
                  f"'c' || i % 3 AS city, CAST(i % 90 AS INTEGER) AS age FROM range({PEOPLE}) t(i)")
    (tmp_path / "people.yaml").write_text(POLICY)
    return tmp_path / "people.yaml"


def released(values: tuple[int, ...], mechanism: Mechanism = Mechanism.LAPLACE,
             scale: float = 10.0, step: float = 1.0) -> Released:
    return Released(tuple((i,) for i in range(len(values))), values, mechanism, scale, step)


# ---- what comes of it ----------------------------------------------------------------------


def test_a_second_answer_is_more_exact_than_its_own_noise(policy: Path) -> None:
    with Engine.open(policy) as engine:
        first = engine.query(COUNTS, epsilon=0.5)
        second = engine.query(COUNTS, epsilon=0.6)
    widths = [high - low for (_, (low, high)) in (*first.intervals, *second.intervals)]
    alone = 2 * laplace.quantile(laplace.scale_for(1, Fraction(6, 10)), 0.95)
    assert max(widths[2:]) < 0.9 * alone < min(widths[:2])
    assert second.cost.epsilon == pytest.approx(0.6)


def test_the_combination_is_what_is_kept(policy: Path) -> None:
    with Engine.open(policy) as engine:
        engine.query(COUNTS, epsilon=0.5)
        second = engine.query(COUNTS, epsilon=0.6)
        spent = engine.budget().spent
        for epsilon in (0.5, 0.6, 0.7):  # more exact than any of these would be
            again = engine.query(COUNTS, epsilon=epsilon)
            assert again.cached
            assert (again.rows, again.intervals) == (second.rows, second.intervals)
        assert engine.budget().spent == spent


@pytest.mark.parametrize(("low", "high"), [(0.7, 1.3)])
def test_the_combined_deviation_is_the_true_one(low: float, high: float) -> None:
    """Squares of 20,000 errors, once against the stated variance and against two wrong ones."""
    chance, count = Randomness.seeded(5), 20_000
    noise = [laplace.sample(scale, count, chance) for scale in (9.0, 12.0, 40.0)]
    found = None
    for scale, z in zip((40.0, 12.0, 9.0), reversed(noise), strict=True):
        found = combined(released(tuple(int(n) for n in z), scale=scale), found)
    assert found is not None
    square = math.fsum(v * v for v in found.values) / count / found.deviation() ** 2
    error = 5 * math.sqrt(5 / count)  # a kurtosis below that of Laplace noise
    assert abs(square - 1) < error
    assert not abs(square / low**2 - 1) < error
    assert not abs(square / high**2 - 1) < error
    inside = sum(abs(v) <= found.half_width(0.95) for v in found.values) / count
    assert 0.945 < inside < 0.965


def test_grids_of_two_releases_are_brought_together() -> None:
    coarse = released((10, -4), scale=64.0, step=0.5)
    fine = released((41, -15), scale=256.0, step=0.125)  # 5.125 and -1.875
    both = combined(fine, coarse)
    assert isinstance(both, Combined)
    assert both.numbers() == pytest.approx([5.0625, -1.9375], abs=0.02)
    assert from_payload(to_payload(both)) == both


def test_what_has_other_cells_or_no_noise_is_left_alone() -> None:
    fresh = released((5, 6))
    for other in (None, released((5, 6, 7)), released((5, 6), Mechanism.EXACT, 0.0)):
        assert combined(fresh, other) is fresh
    exact = released((5, 6), Mechanism.EXACT, 0.0)
    assert combined(exact, fresh) is exact
    tree = Released(((0,),), (5, 6), Mechanism.LAPLACE, 10.0, 1.0, 2)
    assert combined(tree, tree) is tree
    apart = replace(fresh, units=(1, 8))  # clips for single groups
    assert combined(apart, apart) is apart


def test_a_mean_is_combined_with_nothing_but_fresh_noise() -> None:
    """Two means may have a release in common: weighting them as if not would be wrong."""
    first = combined(released((5, 6)), released((7, 8)))
    assert combined(first, released((7, 8))) is first


def test_levels_of_a_target_share_their_noise_and_are_never_combined(
    policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def watched(fresh: Released, earlier: Released | None) -> Released:
        seen.append(earlier)
        return combined(fresh, earlier)

    monkeypatch.setattr(engine.releases, "combined", watched)
    with Engine.open(policy) as opened:
        opened.query(COUNTS, epsilon=0.05)
        seen.clear()
        opened.query(COUNTS, error="10%", epsilon=20)
        opened.query(COUNTS, error="1%", epsilon=20)
    assert seen == []


def test_a_pilot_is_never_combined(policy: Path) -> None:
    """The first pilot counts for ever; a better one would move the bounds of what is kept."""
    sql = "SELECT SUM(age) FROM people"
    with Engine.open(policy) as engine:
        for epsilon in (0.5, 1.0):
            engine.query(sql, epsilon=epsilon, bounds="auto")
        kept = engine._data.kept
        assert kept is not None
        settings = engine.explain(sql, epsilon=0.5, bounds="auto")
        assert settings.kept


def test_an_answer_about_other_data_is_never_combined(policy: Path) -> None:
    """New data, new numbers: what is out about the old ones must not pull the new answer."""
    with Engine.open(policy) as opened:
        opened.query(COUNTS, epsilon=0.5)
        with duckdb.connect(str(policy.parent / "people.duckdb")) as c:
            c.execute("INSERT INTO people SELECT 1000000 + i, 'F', 'c0', 1 FROM range(50000) t(i)")
        opened.refresh()
        found = opened.query(COUNTS, epsilon=0.6)
        alone = laplace.quantile(laplace.scale_for(1, Fraction(6, 10)), 0.95)
        assert found.cost.epsilon == pytest.approx(0.6)
        for (sex, n), (_, (low, high)) in zip(found.rows, found.intervals, strict=True):
            assert (high - low) / 2 == pytest.approx(alone)
            assert abs(n - (50_300 if sex == "F" else 600)) < 20 * alone


def test_a_choice_of_keys_is_combined_beside_itself_only(policy: Path) -> None:
    sql = "SELECT city, COUNT(*) FROM people GROUP BY city"
    with Engine.open(policy) as engine:
        for epsilon in (1.0, 1.2, 1.4):
            result = engine.query(sql, epsilon=epsilon)
            assert len(result.rows) == 3
            assert all(abs(row[1] - PEOPLE / 3) < 100 for row in result.rows)


# ---- attacks -------------------------------------------------------------------------------


def test_asking_at_ever_new_epsilons_pays_every_time(policy: Path) -> None:
    """And what is known in the end is no more than all the charges together could buy.

    The precision (1 over the variance) of the answer is the sum of those of the releases, which
    is less than that of one release at the sum of their epsilons.
    """
    epsilon, paid, precision = 0.1, 0.0, 0.0
    with Engine.open(policy) as engine:
        for _ in range(12):
            result = engine.query("SELECT COUNT(*) FROM people", epsilon=epsilon)
            if not result.cached:
                assert result.cost.epsilon == pytest.approx(epsilon)
                paid += epsilon
                scale = laplace.scale_for(1, Fraction(str(round(epsilon, 6))))
                precision += 1 / laplace.deviation(scale) ** 2
            (low, high), = result.intervals[0]
            # The width of a mean is that of its deviation, and half a step for rounding.
            deviation = (high - low) / 2 / (math.log(20) / math.sqrt(2))
            assert deviation >= 0.95 / math.sqrt(precision)
            assert deviation >= 1 / laplace_precision(paid)
            epsilon = round(epsilon * 1.1, 6)
        assert engine.budget().spent.epsilon == pytest.approx(paid)
        assert len(engine.history()) >= 4


def laplace_precision(epsilon: float) -> float:
    """1 over the deviation of one release at this epsilon."""
    return 1 / laplace.deviation(laplace.scale_for(1, Fraction(epsilon)))


def test_the_transcript_of_a_series_tells_neighbours_apart_within_the_sum() -> None:
    """Exact odds of every pair of fresh releases; the shown mean is a function of the pair.

    For counts of 7 and 8, and noises of two scales: the largest log odds of what was shown, over
    all transcripts, is at most the sum of both epsilons. A mean that used one noise twice, or
    whose release was not charged, would have to show a transcript beyond it.
    """
    scales, epsilons = (5.0, 3.0), (1 / 5.0, 1 / 3.0)
    span = range(-40, 60)
    odds: dict[tuple[int, int], list[float]] = {}
    for one in span:
        for two in span:
            first = released((one,), scale=scales[0])
            shown = combined(released((two,), scale=scales[1]), first)
            cell = odds.setdefault((one, shown.values[0]), [0.0, 0.0])
            for i, exact in enumerate((7, 8)):
                cell[i] += math.exp(-abs(one - exact) / scales[0] - abs(two - exact) / scales[1])
    worst = max(abs(math.log(a / b)) for a, b in odds.values())
    assert worst <= sum(epsilons) + 1e-9
    assert worst > 0.99 * sum(epsilons)  # and the charge is not too much either


# ---- counts that look like counts ----------------------------------------------------------


def test_zero_stands_for_what_noise_made_negative(policy: Path) -> None:
    sql = ("SELECT age, COUNT(*) AS n, SUM(age) AS s, COUNT(*) - 5 AS d FROM people "
           "WHERE age > 200 GROUP BY age")
    with Engine.open(policy) as engine:
        plain = engine.query(sql, epsilon=0.5)
        clamped = engine.query(sql, epsilon=0.5, nonnegative=True)
        assert clamped.cached
        assert any(row[1] < 0 for row in plain.rows)
        both = zip(plain.rows, plain.intervals, clamped.rows, clamped.intervals, strict=True)
        for before, wide, after, ends in both:
            assert after[0] == before[0]
            assert after[1:3] == tuple(max(x, 0) for x in before[1:3])
            assert after[3] == before[3]  # a difference may be negative
            assert ends[1][0] >= 0
            assert ends[2][0] >= 0
            for i in (1, 2):  # the truth is zero: an interval that held it still does
                assert (wide[i][0] <= 0 <= wide[i][1]) <= (ends[i][0] <= 0 <= ends[i][1])
        assert engine.query(sql, epsilon=0.5).rows == plain.rows
        assert len(engine.history()) == 1


def test_totals_are_those_of_the_numbers_before(policy: Path) -> None:
    """A total of clamped parts would be too large; the engine's own is not touched."""
    sql = "SELECT age, COUNT(*) FROM people WHERE age > 200 GROUP BY ROLLUP (age)"
    with Engine.open(policy) as engine:
        plain = engine.query(sql, epsilon=0.5)
        clamped = engine.query(sql, epsilon=0.5, nonnegative=True)
        (total,) = [row[1] for row in plain.rows if row[0] is None]
        (shown,) = [row[1] for row in clamped.rows if row[0] is None]
        parts = sum(row[1] for row in clamped.rows if row[0] is not None)
        assert shown == max(total, 0)
        assert parts > shown
