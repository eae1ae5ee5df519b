"""The best attack on every class of question: the likelihood ratio over all that it releases.

For each accepted case and a neighbour the exact integers of all its columns are known on both
sides. The noise is drawn again and again by the function that releases use, and the attacker
scores each draw by the ratio of the two databases' likelihoods: no other test tells them apart
better (Neyman and Pearson). What a threshold on that score proves of epsilon, at 99.9999 %, must
never be above the whole question's charge.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine import Engine, Refused
from engine.audit_epsilon import epsilon_below
from engine.release import _noise
from mechanisms.randomness import Randomness
from planner.price import Mechanism
from tests.audits.conftest import Figure
from tests.engine.replay import Case, Run, read_cases, replayed

CASES = read_cases("accepted")
STRANGERS = ("with a greedy patient", "without the heavy patient")
QUICK, LONG = 20_000, 100_000
CELLS_MOST = 400  # differing cells that are drawn; the others only make the attack weaker


def scores(one: Run, two: Run, draws: int, shrink: float = 1.0) -> tuple[Any, Any] | None:
    """Return the log likelihood ratio of draws on both sides; None where nothing differs.

    Columns over chosen keys count on the keys that both sides have.
    """
    randomness = Randomness.secure()
    totals = np.zeros((2, draws))
    differs = False
    for (label, column, a), (_, _, b) in zip(one.vectors, two.vectors, strict=True):
        if column.mechanism is Mechanism.EXACT:
            continue
        shared = a.keys() & b.keys() if label.endswith("keys") else a.keys() | b.keys()
        cells = [(a.get(k, 0), b.get(k, 0)) for k in shared if a.get(k, 0) != b.get(k, 0)]
        cells.sort(key=lambda pair: -abs(pair[0] - pair[1]))
        for ours, theirs in cells[:CELLS_MOST]:
            differs, apart = True, float(theirs - ours)
            for side, sign in ((0, 0.0), (1, apart)):
                drawn = np.array(_noise(column, draws, randomness), dtype=float) * shrink + sign
                if column.mechanism is Mechanism.LAPLACE:
                    totals[side] += (np.abs(drawn) - np.abs(drawn - apart)) / column.scale
                else:
                    totals[side] += (drawn**2 - (drawn - apart) ** 2) / (2 * column.scale**2)
    return (totals[0], totals[1]) if differs else None


def proven(one: Run, two: Run, draws: int, shrink: float = 1.0) -> float:
    drawn = scores(one, two, draws, shrink)
    if drawn is None:
        return 0.0
    return epsilon_below(*drawn, delta=float(one.plan.loss.exact_delta))


def audited(case: Case, change: str, clinics: dict[str, Engine], draws: int) -> float:
    """Return the largest share of its charge that was proven; it must not be above 1."""
    most = 0.0
    for rows in (None, 3):
        try:
            one = replayed(clinics["base"], case.sql, rows)
        except Refused:
            continue
        two = replayed(clinics[change], case.sql, rows, one)
        found, charged = proven(one, two, draws), float(one.plan.loss.epsilon)
        assert found <= charged, rows
        most = max(most, found / charged if charged else 0.0)
    return most


@pytest.mark.parametrize("case", CASES[::9], ids=str)
def test_the_best_attack_proves_no_more_than_was_charged(
    case: Case, clinics: dict[str, Engine]
) -> None:
    audited(case, STRANGERS[0], clinics, QUICK)


@pytest.mark.audit
@pytest.mark.parametrize("change", STRANGERS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_best_attack_proves_no_more_than_was_charged_at_length(
    case: Case, change: str, clinics: dict[str, Engine], figure: Figure
) -> None:
    share = audited(case, change, clinics, LONG)
    figure(f"share of its charge that the best attack proves: {case}, {change}", round(share, 4))


WORST = "SELECT COUNT(*), SUM(cost), COUNT(DISTINCT patient_id) FROM visits"


def test_the_best_attack_has_power(clinics: dict[str, Engine]) -> None:
    """On several columns that one patient moves as far as stated, it proves most of the charge;
    noise of three quarters of the scale is found."""
    one = replayed(clinics["base"], WORST)
    two = replayed(clinics["with a greedy patient"], WORST, like=one)
    charged = float(one.plan.loss.epsilon)
    assert 0.7 * charged <= proven(one, two, LONG) <= charged
    assert proven(one, two, LONG, shrink=0.6) > charged
