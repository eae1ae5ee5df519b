"""End to end: what an attacker can prove of epsilon is below the charge, and not far below.

Worst-case neighbours: the patient who is removed or added fills the whole sensitivity. `audit`
runs more draws; the fast ones are below a minute together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from engine import Engine
from engine.api import Settings
from engine.audit_epsilon import epsilon_below, proportion_bounds
from engine.execution import Exact
from engine.release import add_noise, choose_keys
from mechanisms.randomness import Randomness
from planner.bounded_sql import SELECTION
from planner.pilot import Bounds
from planner.price import Mechanism
from tests.audits.audit import Samples, chi_square_p, laplace_law
from tests.audits.conftest import Figure
from tests.engine.replay import Run, replayed

FAST, LONG = 200_000, 2_000_000
HEAVY, GREEDY = "without the heavy patient", "with a greedy patient"

# question, neighbour, rows, whether Laplace noise is expected to be nearly tight
PAIRS = [
    ("SELECT COUNT(*) FROM visits", HEAVY, None, True),
    ("SELECT COUNT(*) FROM patients", GREEDY, None, True),
    ("SELECT COUNT(DISTINCT patient_id) FROM visits", HEAVY, None, True),
    ("SELECT SUM(cost) FROM visits", GREEDY, None, True),
    ("SELECT SUM(cost) FROM visits WHERE los >= 0", GREEDY, None, True),
    ("SELECT SUM(los - 30) FROM visits", GREEDY, 3, True),
    ("SELECT COUNT(*) FROM labs", GREEDY, None, True),
    ("SELECT COUNT(*) FROM visits a JOIN visits b USING (patient_id)", HEAVY, None, True),
]


def drawn(one: Run, two: Run, draws: int, shrink: float) -> tuple[Samples, Samples]:
    """Draw the released number of the first column on both neighbours."""
    randomness, found = Randomness.seeded(11), []
    keys = tuple((n,) for n in range(draws))
    for run in (one, two):
        _, column, vector = run.vectors[0]
        exact = dict.fromkeys(keys, sum(vector.values()))
        planted = replace(column, scale=column.scale * shrink)
        released = add_noise(planted, keys, exact, randomness)
        found.append(np.array([float(v) for v in released.values]))
    return found[0], found[1]


def audited(clinics: dict[str, Engine], sql: str, change: str, rows: int | None,
            draws: int, shrink: float = 1.0, epsilon: float = 0.5) -> tuple[float, float]:
    """Return the proven lower bound on epsilon and the charged epsilon.

    `shrink` plants a bug: noise of a smaller scale than was paid for.
    """
    one = replayed(clinics["base"], sql, rows, bounds=Bounds.DECLARED, epsilon=epsilon)
    two = replayed(clinics[change], sql, rows, one, Bounds.DECLARED, epsilon)
    _, column, _ = one.vectors[0]
    apart = abs(sum(one.vectors[0][2].values()) - sum(two.vectors[0][2].values()))
    assert apart == column.l1, "the neighbours are not the worst ones"
    ours, theirs = drawn(one, two, draws, shrink)
    return epsilon_below(ours, theirs), float(one.plan.loss.epsilon)


@pytest.mark.parametrize(("sql", "change", "rows", "tight"), PAIRS)
def test_nobody_proves_more_than_was_charged(
    sql: str, change: str, rows: int | None, tight: bool, clinics: dict[str, Engine]
) -> None:
    proven, charged = audited(clinics, sql, change, rows, FAST)
    assert charged == pytest.approx(0.5)
    assert proven <= charged
    if tight:  # an audit that finds nothing proves nothing
        assert proven >= 0.9 * charged


@pytest.mark.parametrize(("sql", "change", "rows", "tight"), PAIRS)
def test_a_hundred_thousand_runs_prove_nine_tenths_of_the_charge(
    sql: str, change: str, rows: int | None, tight: bool, clinics: dict[str, Engine]
) -> None:
    proven, charged = audited(clinics, sql, change, rows, 100_000, epsilon=2.0)
    assert charged == pytest.approx(2.0)
    assert 0.9 * charged <= proven <= charged


@pytest.mark.audit
@pytest.mark.parametrize(("sql", "change", "rows", "tight"), PAIRS)
def test_nobody_proves_more_than_was_charged_at_length(
    sql: str, change: str, rows: int | None, tight: bool, clinics: dict[str, Engine],
    figure: Figure,
) -> None:
    proven, charged = audited(clinics, sql, change, rows, LONG)
    figure(f"epsilon proven by {LONG:,} draws on either side: {sql}, {change}",
           {"charged": charged, "proven": round(proven, 4)})
    assert 0.95 * charged <= proven <= charged


def asked_again(engine: Engine, runs: int, epsilon: float) -> Samples:
    """Ask one question from its text on, again and again; nobody keeps answers or adds up."""
    return np.array([float(engine.query(END_TO_END, epsilon=epsilon).rows[0][0])  # type: ignore[arg-type]
                     for _ in range(runs)])


END_TO_END = "SELECT COUNT(DISTINCT patient_id) FROM visits"


@pytest.mark.audit
def test_whole_questions_prove_nine_tenths_of_the_charge(
    clinics: dict[str, Engine], figure: Figure
) -> None:
    """No part of the road is taken apart here: text in, rows of the result out."""
    ours = asked_again(clinics["base"], 100_000, 2.0)
    theirs = asked_again(clinics[HEAVY], 100_000, 2.0)
    proven = epsilon_below(ours, theirs)
    figure(f"epsilon proven by 100,000 whole questions on either side: {END_TO_END}",
           {"charged": 2.0, "proven": round(proven, 4)})
    assert 1.8 <= proven <= 2.0


def test_the_audit_finds_noise_that_is_too_small(clinics: dict[str, Engine]) -> None:
    proven, charged = audited(clinics, *PAIRS[0][:3], FAST, shrink=0.75)
    assert proven > charged


# ---- which keys are shown ------------------------------------------------------------------


def shown(run: Run, draws: int, own: Callable[[Any], bool]) -> int:
    """Count in how many draws any key of one patient alone is shown."""
    (release,) = run.plan.releases
    _, _, vector = next(v for v in run.vectors if v[0].endswith("keys"))
    mine = {key: n for key, n in vector.items() if own(key)}
    randomness, hits = Randomness.seeded(5), 0
    block = 2_000
    for _ in range(draws // block):
        many = {(*key, i): n for key, n in mine.items() for i in range(block)}
        chosen = choose_keys(release, Exact(release, {SELECTION: many}), randomness)
        hits += len({key[-1] for key in chosen.keys})
    return hits


@pytest.mark.parametrize("delta", [0.2, 0.02])
def test_a_key_of_one_patient_alone_is_shown_with_probability_delta_at_most(
    delta: float, clinics: dict[str, Engine]
) -> None:
    sql = "SELECT diagnosis FROM visits GROUP BY diagnosis"
    greedy = clinics[GREEDY]
    run = _with_delta(greedy, sql, delta)
    tail = float(run.plan.tail)
    assert tail <= delta
    draws = 20_000
    hits = shown(run, draws, lambda key: str(key[0]).startswith("H") and "." not in str(key[0]))
    low, high = proportion_bounds(hits, draws)
    assert low <= tail
    assert high >= 0.3 * tail  # and the threshold is not needlessly high


def _with_delta(engine: Engine, sql: str, delta: float) -> Run:
    """Replay a question that may spend this delta."""
    true = engine._plan
    with pytest.MonkeyPatch.context() as patch:
        settings = Settings(1.0, delta, None)
        patch.setattr(engine, "_plan", lambda text, _, data: true(text, settings, data))
        return replayed(engine, sql)


# ---- the law and the grid of what is released ------------------------------------------------


def noise_of_counts(base: Engine, questions: int) -> tuple[list[int], float]:
    """Ask end to end, many groups at a time, and return the noise of every count."""
    sql = "SELECT los, COUNT(*) FROM visits WHERE 1 = 1 GROUP BY los"
    exact = dict(base.query(sql, epsilon=0.5, noiseless=True).rows)
    noise: list[int] = []
    scale = 0.0
    for _ in range(questions):
        result = base.query(sql, epsilon=0.5)
        scale = result.plan.releases[0].scale
        noise += [n - exact[los] for los, n in result.rows]  # type: ignore[operator]
    return noise, scale


def test_released_counts_follow_the_exact_law_and_no_other(base: Engine) -> None:
    noise, scale = noise_of_counts(base, 250)
    reach = round(8 * scale)
    assert chi_square_p(noise, laplace_law(scale, reach), reach) > 1e-9
    for wrong in (0.7, 1.3):
        assert chi_square_p(noise, laplace_law(scale * wrong, reach), reach) < 1e-20


def test_released_numbers_lie_on_their_grid(clinics: dict[str, Engine]) -> None:
    """Any number off the grid would tell the databases apart with certainty."""
    sql = "SELECT department, SUM(cost) AS s, COUNT(*) AS n, COUNT(DISTINCT patient_id) AS p " \
          "FROM visits GROUP BY department"
    for name in ("base", HEAVY, GREEDY, "with a dirty patient"):
        for _ in range(20):
            result = clinics[name].query(sql, epsilon=0.5)
            step = Fraction(result.plan.releases[0].step)
            assert step.numerator == 1
            assert step.denominator & (step.denominator - 1) == 0  # a power of two
            for _, total, *counts in result.rows:
                assert (Fraction(total) / step).denominator == 1  # type: ignore[arg-type]
                assert all(isinstance(n, int) for n in counts)


def test_equal_true_counts_get_independent_noise(base: Engine) -> None:
    """Neighbouring groups of one answer are not correlated."""
    noise, _ = noise_of_counts(base, 120)
    rows = np.array(noise, dtype=float).reshape(-1, 62)
    assert abs(float(np.corrcoef(rows[:, :-1].ravel(), rows[:, 1:].ravel())[0, 1])) < 0.08


def test_seeded_noise_is_for_testing_only(base: Engine) -> None:
    run = replayed(base, "SELECT COUNT(*) FROM visits")
    assert run.vectors[0][1].mechanism is Mechanism.LAPLACE
    assert not base.query("SELECT COUNT(*) FROM visits", epsilon=0.5).is_private
