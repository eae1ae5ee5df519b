"""Candidate runs in, a priced search among them out; and the noisy score that a run is chosen by.

After Papernot and Steinke 2022. A run draws a candidate, trains it on some patients, and is scored
on others; that is repeated K times, K drawn from a public law and never shown, and the run of the
largest score is what leaves. A third part of the patients measures it, after the choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final

import numpy as np

from mechanisms import gaussian
from mechanisms.conversion import epsilon_at
from mechanisms.event import RepeatedEvent
from mechanisms.loss import PrivacyLoss
from mechanisms.pricing import loss_of
from mechanisms.randomness import Randomness
from mechanisms.repetition import LAWS, MEAN_MAX, ORDERS, Repetitions
from mechanisms.sampled import rdp
from models.clipping import KEPT
from models.descent import Network, Vector, noised
from models.encoding import Doubles, Encoding, Floats, Task, rates
from models.run import RunPlan
from models.table import Places, Table
from planner.refusal import Refused

CANDIDATES_MAX: Final = 256
CHOOSING: Final = 0.5  # of the held-out patients: they choose, the others measure
LOSS_MAX: Final = 3.0  # nats; a worse prediction of one patient counts like this one
TRIES: Final = 12
Candidate = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Tuned:
    """How a model was chosen: public facts. How many runs there were is none of them.

    `score` is the largest of the noisy scores of all runs, and so flatters: a model's `metrics` are
    those of patients who chose nothing. `deviation` is the noise on each score.
    """

    choice: Mapping[str, Any]
    score: float
    deviation: float
    candidates: int
    runs: float

    def __str__(self) -> str:
        chosen = ", ".join(f"{name}={value!r}" for name, value in self.choice.items()) or "defaults"
        return (f"{chosen}: best of about {self.runs:g} runs over {self.candidates} candidates, "
                f"noisy score {self.score:.3f} (noise {self.deviation:.2g})")


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningPlan:
    """A search before it is paid: free to ask, and the same for every database of the policy.

    `single` is about what one of its runs would cost alone; `measuring` is the noise on the counts
    that the chosen model's metrics are read off.
    """

    candidates: tuple[Candidate, ...]
    runs: tuple[RunPlan, ...] = field(repr=False)
    law: Repetitions
    single: float
    measuring: float
    event: RepeatedEvent = field(repr=False)
    cost: PrivacyLoss

    @property
    def choosing(self) -> float:
        """The expected number of patients who score a run, from public numbers only."""
        return max(1.0, self.runs[0].units * self.runs[0].settings.holdout * CHOOSING)

    def facts(self) -> dict[str, Any]:
        """Return all of it as plain values: what is hashed."""
        return {"runs": [run.facts() for run in self.runs],
                "law": self.law.name, "gamma": str(self.law.gamma), "measuring": self.measuring,
                "choosing": CHOOSING}

    def __str__(self) -> str:
        noise = max(scoring(run) for run in self.runs) / self.choosing
        each = self.runs[0].settings.holdout
        return "\n".join((
            f"the best of about {self.law.mean:.0f} runs over {len(self.candidates)} candidates "
            f"for {self.runs[0].encoding.label.name}",
            f"  cost              {self.cost}",
            f"  a single run      about epsilon {self.single:.4g}, were it the only one",
            f"  runs              a secret number, {self.law.name}, that nothing shows",
            f"  scores            on {each * CHOOSING:.0%} of the patients, noise {noise:.2g}",
            f"  metrics           on {each * (1 - CHOOSING):.0%} of the patients, counts with "
            f"noise {self.measuring:.3g}, within the same price",
        ))


def read_candidates(given: object) -> tuple[Candidate, ...]:
    """Return candidates from a list of settings, or from a grid: a list of values by name."""
    if isinstance(given, Mapping):
        found: list[dict[str, Any]] = [{}]
        for name, values in given.items():
            if not isinstance(values, list | tuple) or not values:
                raise Refused("model", f"the grid's {name} is no list of values",
                              f"{{'{name}': [0.05, 0.2]}}")
            found = [{**one, name: value} for one in found for value in values]
            _check_count(found)
    elif isinstance(given, list | tuple) and all(isinstance(one, Mapping) for one in given):
        found = [dict(one) for one in given]
    else:
        raise Refused("model", "candidates are a list of settings or a grid of them",
                      "candidates=[{'learning_rate': 0.05}, {'learning_rate': 0.2}]")
    _check_count(found)
    for one in found:
        if any(name in ("label", "epsilon", "delta", "rows", "units", "holdout", "buckets",
                        "dialect") for name in one):
            raise Refused("model", "candidates share the view, the price and the patients",
                          "label, epsilon, delta, rows, units, holdout and buckets beside "
                          "candidates=")
    return tuple(tuple(sorted(one.items())) for one in found)


def _check_count(found: list[dict[str, Any]]) -> None:
    if not 1 <= len(found) <= CANDIDATES_MAX:
        raise Refused("model", f"a search has 1 to {CANDIDATES_MAX} candidates, not {len(found)}",
                      "a smaller grid")


def read_law(name: object, runs: object) -> Repetitions:
    """Return the law of the number of runs. Raises Refused."""
    if name not in LAWS:
        raise Refused("model", f"no law of runs {name!r}", " or ".join(LAWS))
    number = isinstance(runs, int | float) and not isinstance(runs, bool)
    if not (number and 1 < float(runs) <= MEAN_MAX):  # type: ignore[arg-type]
        raise Refused("model", f"runs is about how many are tried, above 1 and up to {MEAN_MAX}, "
                      f"got {runs!r}", "runs=10")
    return Repetitions.of_mean(str(name), float(runs))  # type: ignore[arg-type]


def scoring(run: RunPlan) -> float:
    """Return the noise multiplier of a run's score: that of its second branch."""
    if run.held_multiplier is None:
        raise Refused("model", "a search needs held-out patients, who choose", "holdout=0.3")
    return run.held_multiplier


def plan_tuning(
    candidates: tuple[Candidate, ...], planned: Callable[[Fraction], tuple[RunPlan, ...]],
    law: Repetitions, epsilon: Fraction, delta: Fraction, order: Fraction,
) -> TuningPlan:
    """Find the noise of the runs with which the best of them costs at most epsilon.

    `planned` gives the candidates' runs at a price of the best of them.

    Guarantee: the event is fixed here, before any row is read. One run is a candidate drawn by a
    coin, its training on some patients and its score on others: a patient is in one of the two
    branches of the candidate's own event, or, by another coin, in neither, and then in the counts
    that measure the chosen model.
    """
    if not delta > 0:
        raise Refused("delta", "training needs a delta above zero", "delta=1e-6")
    target = epsilon
    try:
        for _ in range(TRIES):
            runs = planned(target)
            for run in runs:
                scoring(run)  # refused where nobody could choose
            event = _event(runs, law, epsilon, delta, order)
            cost = loss_of((event,), order)
            if Fraction(cost.exact_epsilon) <= epsilon:
                return TuningPlan(
                    candidates=candidates, runs=runs, law=law, single=_single(event),
                    measuring=event.once[0][1], event=event, cost=cost)
            # Candidates differ in the orders that suit them: all together they cost a little more.
            target *= Fraction(round(float(epsilon) / cost.epsilon * 0.999 * 2**20), 2**20)
    except ValueError as problem:
        raise Refused("epsilon", f"no search has this price: {problem}",
                      "an epsilon between 0.3 and 10, or fewer runs") from None
    raise Refused("epsilon", f"no search costs so little: {float(epsilon):g}", "epsilon=1")


def _single(event: RepeatedEvent) -> float:
    """Return about what one run would cost alone: by Renyi divergences, at whole orders."""
    return max(
        float(min(epsilon_at(a, rdp(branch, a), event.delta) for a in ORDERS if a <= 64))
        for branch in event.branches
    )


def _event(
    runs: tuple[RunPlan, ...], law: Repetitions, epsilon: Fraction, delta: Fraction,
    order: Fraction,
) -> RepeatedEvent:
    """Return the event of a search; its last counts have the least noise that costs no more."""
    branches = tuple(dict.fromkeys(
        branch for run in runs for branch in run.event.branches))
    least = gaussian.multiplier_for(epsilon, delta)
    event = RepeatedEvent(branches, ((1.0, 2.0**20, 1),), law.name, law.gamma, delta)
    alone = loss_of((event,), order)
    while True:
        louder = replace(event, once=((1.0, _short(least), 1),))
        if loss_of((louder,), order) == alone:
            return louder
        least *= 1.01


def _short(z: float) -> float:
    mantissa, exponent = math.frexp(z)
    return math.ldexp(math.ceil(mantissa * 2**20), exponent - 20)


# ---- the score ---------------------------------------------------------------------------------


def score(
    network: Network, parameters: Vector, table: Table, units: Places, multiplier: float,
    expected: float, randomness: Randomness,
) -> float:
    """Return the mean quality of a model's predictions for some patients, with noise.

    Guarantee: one patient moves the sum of qualities by at most 1, whatever its rows hold; the sum
    is one Gaussian release of noise `multiplier`, and is divided by a public number.
    """
    rows = table.starts[units]  # a patient's first row, in the secret random order of its rows
    total = 0.0
    for first in range(0, len(rows), 8192):
        part = rows[first : first + 8192]
        pixels = None if table.pixels is None else table.pixels[part]
        scores = network.scores(parameters, table.inputs[part], pixels)
        found = quality(network.encoding, scores, table.targets[part])
        total += float(np.nan_to_num(found).sum())
    noisy = noised(np.array([KEPT * total]), multiplier, randomness)
    return float(noisy[0]) / expected


def quality(encoding: Encoding, scores: Doubles, targets: Floats) -> Doubles:
    """Return how good each prediction is, between 0 and 1.

    Classes: 1 less the logarithmic loss over LOSS_MAX, or 0. Numbers and counts: 1 less the error
    over half the width of the label's bounds, or 0.
    """
    safe = np.nan_to_num(scores, nan=0.0, posinf=1e6, neginf=-1e6)
    if encoding.task is Task.REAL:
        near: Doubles = np.clip(1 - np.abs(np.clip(safe[:, 0], -1, 1) - targets), 0.0, 1.0)
        return near
    if encoding.task is Task.COUNT:
        return np.asarray(np.clip(1 - np.abs(rates(safe[:, 0]) - targets), 0.0, 1.0))
    if encoding.task is Task.BINARY:
        loss = np.logaddexp(0.0, -safe[:, 0] * (2.0 * targets - 1.0))
    else:
        places = np.clip(np.nan_to_num(targets), 0, safe.shape[1] - 1).astype(np.int64)
        loss = np.logaddexp.reduce(safe, axis=1) - safe[np.arange(len(safe)), places]
    found: Doubles = 1 - np.clip(loss, 0.0, LOSS_MAX) / LOSS_MAX
    return found
