"""A training run audited in one run, with a thousand canaries (Steinke, Nasr and Jagielski 2023).

Each canary is a patient that is in the table by a fair coin. The auditor sees the model and guesses
the coins of the canaries it is surest about. The number of right guesses bounds epsilon from below;
the bound must stay under the charge, and a planted bug must push it over.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binom

from mechanisms.randomness import Randomness
from models.clipping import Clip
from models.descent import State, Vector, descend
from models.encoding import Encoding
from models.linear import LinearModel
from models.run import Defaults, RunPlan, Settings, plan_run
from models.table import Places, Table
from planner.training_view import Coding, Feature

CANARIES = 1_500
ROWS = 20
DELTA = 1e-9
CONFIDENCE = 1 - 1e-4

ENCODING = Encoding(
    (Feature("mark", Coding.BUCKETS, False, buckets=CANARIES),), Feature("y", Coding.TRUTH, False)
)


def p_value(guesses: int, right: int, epsilon: float) -> float:
    """Return how likely so many right guesses are at most under epsilon and DELTA (theorem 5.2)."""
    q = 1 / (1 + np.exp(-epsilon))
    beta = float(binom.sf(right - 1, guesses, q))
    summed, alpha = 0.0, 0.0
    for i in range(1, right + 1):
        summed += float(binom.pmf(right - i, guesses, q))
        alpha = max(alpha, summed / i)
    return min(1.0, beta + alpha * DELTA * 2 * CANARIES)


def epsilon_below(scores: np.ndarray, present: np.ndarray) -> float:
    """Return an epsilon that the run surely exceeds, over a fixed list of numbers of guesses."""
    order = np.argsort(scores)
    choices = (60, 150, 400, 1000)
    best = 0.0
    for guesses in choices:
        low, high = order[: guesses // 2], order[-guesses // 2 :]
        right = int((~present[low]).sum() + present[high].sum())
        least, most = 0.0, 20.0
        if p_value(guesses, right, least) >= (1 - CONFIDENCE) / len(choices):
            continue
        for _ in range(30):
            middle = (least + most) / 2
            if p_value(guesses, right, middle) < (1 - CONFIDENCE) / len(choices):
                least = middle
            else:
                most = middle
        best = max(best, least)
    return best


class RowClipped(LinearModel):
    """The planted bug: each row of a patient is clipped for itself."""

    def clipped_sum(self, parameters: Vector, table: Table, units: Places, clip: Clip) -> Vector:
        apart = Table(table.inputs, None, table.targets, np.arange(len(table.targets) + 1))
        places, _ = table.rows_of(units)
        rows = np.arange(len(table.targets))[places]
        return LinearModel.clipped_sum(self, parameters, apart, rows, clip)


class NoisedByRate(LinearModel):
    """The planted bug: a sample of patients is priced, and everybody is taken."""

    def clipped_sum(self, parameters: Vector, table: Table, units: Places, clip: Clip) -> Vector:
        everybody = np.arange(table.units)
        return LinearModel.clipped_sum(self, parameters, table, everybody, clip)


def planned(epsilon: int, batch: int | None, **adaptive: float) -> RunPlan:
    settings = Settings(steps=10, batch=batch, holdout=0.0, learning_rate=0.1,
                        **adaptive)  # type: ignore[arg-type]
    defaults = Defaults(steps=1.0, learning_rate=0.1, decay=0.0, always_full=True)
    network = LinearModel(ENCODING)
    return plan_run("logistic", ENCODING, settings, defaults, network.size, CANARIES,
                    Fraction(epsilon), Fraction(DELTA), Fraction(9))


def audited(make: Callable[[Encoding], LinearModel], plan: RunPlan) -> float:
    """Train on those canaries whose coin fell on heads, guess all coins from the model."""
    present = Randomness.secure().uint64(CANARIES) % 2 == 1
    marks = np.flatnonzero(present)
    inputs = np.zeros((len(marks) * ROWS, CANARIES), dtype=np.float32)
    inputs[np.arange(len(inputs)), np.repeat(marks, ROWS)] = 1.0
    table = Table(inputs, None, np.ones(len(inputs), dtype=np.float32),
                  np.arange(len(marks) + 1) * ROWS)
    network = make(ENCODING)
    sums = np.zeros(network.size)

    def watch(state: State) -> None:
        sums[:] += state.first  # a function of the noisy sums: the strongest view of a run

    start = State.start(network.initial(Randomness.seeded(0)))
    descend(network, table, plan, Randomness.secure().bytes(32), start, watch)
    return epsilon_below(-sums[:CANARIES], present)


@pytest.mark.audit
@pytest.mark.parametrize(("batch", "adaptive"), [
    (None, {}), (300, {}), (None, {"clip_quantile": 0.7, "clip": 0.1, "noise_end": 0.5}),
])
def test_the_empirical_epsilon_is_below_the_charge(
    batch: int | None, adaptive: dict[str, float]
) -> None:
    plan = planned(8, batch, **adaptive)
    found = audited(LinearModel, plan)
    print(f"batch {batch}: charged {plan.cost.epsilon:.3f}, audited at least {found:.3f}")
    assert found <= plan.cost.epsilon
    if batch is None:
        assert found > 0.3, "an audit that finds nothing shows nothing"


@pytest.mark.audit
@pytest.mark.parametrize(("bug", "batch"), [(RowClipped, None), (NoisedByRate, 50)])
def test_a_planted_bug_is_found(bug: Callable[[Encoding], LinearModel], batch: int | None) -> None:
    plan = planned(1, batch)
    found = audited(bug, plan)
    print(f"{bug.__name__}: charged {plan.cost.epsilon:.3f}, audited at least {found:.3f}")
    assert found > plan.cost.epsilon
