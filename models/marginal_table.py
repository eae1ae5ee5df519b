"""Patients' rows and a priced plan in, a table of rows drawn from noisy counts out.

The central form of a released table: what is noised are counts of every attribute beside the label,
each patient once in each, and the rows are drawn from them: none of them is a patient's. An
attribute that tells more of the label gets more of the divergence, by a noisy measure that is
bought first. What attributes tell of each other beyond the label is lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mechanisms import gaussian
from mechanisms.event import Event, GaussianEvent
from mechanisms.loss import PrivacyLoss
from mechanisms.pricing import loss_of
from mechanisms.randomized_response import uniform
from mechanisms.randomness import Randomness
from models.encoding import Encoding
from models.importance import importance_at_once, information_gain
from models.noised_table import (
    IMPORTANCE,
    NOISE,
    ROWS,
    Attribute,
    NoisedTable,
    Values,
    attributes_of,
    check_share,
)
from models.table import Table
from planner.refusal import Refused

BINS: Final = 16  # of a number, in equal parts of its bounds
Counts = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginalPlan:
    """A table of drawn rows before it is paid: free to ask, the same for every database.

    `multiplier` is the noise of a table of counts that had the whole divergence to itself;
    `bought` is that of the importance, None where attributes share evenly.
    """

    encoding: Encoding
    rows: int
    multiplier: float
    bought: float | None
    importance_by: str
    event: GaussianEvent
    cost: PrivacyLoss

    @property
    def events(self) -> tuple[Event, ...]:
        """What is charged."""
        return (self.event,)

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """All columns, the label last."""
        return attributes_of(self.encoding)

    def facts(self) -> dict[str, Any]:
        """Return all of it as plain values: what is hashed."""
        return {"form": "marginals", "encoding": self.encoding.to_dict(), "rows": self.rows,
                "multiplier": self.multiplier, "bought": self.bought, "bins": BINS,
                "importance_by": self.importance_by}

    def __str__(self) -> str:
        columns = len(self.attributes)
        each = self.multiplier * math.sqrt(columns)
        how = "evenly" if self.bought is None else f"by noisy importance ({self.importance_by})"
        return "\n".join((
            f"a table of {self.rows:,} drawn rows and {columns} columns, for "
            f"{self.encoding.label.name}",
            f"  cost              {self.cost}",
            f"  counts            of each attribute beside the label, noise {each:.3g} patients "
            f"on average, shared {how}",
            "  lost              what attributes tell of each other beyond the label",
        ))


def plan_marginals(
    encoding: Encoding, rows: int, share: float, importance_by: str, epsilon: Fraction,
    delta: Fraction, order: Fraction,
) -> MarginalPlan:
    """Work out the noise from epsilon, before any row is read.

    Guarantee: the event is fixed here. All tables of counts have together the divergence of one
    release of noise `multiplier`, however they share it by what the importance said.
    """
    check_share(encoding, rows, share)
    if not delta > 0:
        raise Refused("delta", "a released table needs a delta above zero", "delta=1e-6")
    try:
        whole = gaussian.multiplier_for(epsilon, delta) * (1 + 2.0**-30)
        multiplier = whole / math.sqrt(1 - share)
        bought = whole / math.sqrt(share) if share > 0 else None
        parts = ((1, multiplier),) if bought is None else ((1, bought), (1, multiplier))
        event = GaussianEvent(parts, delta)
    except ValueError as problem:
        raise Refused("epsilon", f"no table has this price: {problem}",
                      "an epsilon between 0.1 and 10") from None
    return MarginalPlan(
        encoding=encoding, rows=rows, multiplier=multiplier, bought=bought,
        importance_by=importance_by, event=event, cost=loss_of((event,), order),
    )


def drawn_table(
    plan: MarginalPlan, rows: Values, table: Table | None, key: bytes
) -> NoisedTable:
    """Buy importance, count every attribute beside the label with noise, draw rows.

    `key` is a fresh secret, from which all randomness comes.

    Guarantee: plan.event. Each patient is one of `rows`, so once in one cell of each table of
    counts; table j gets noise sigma_j, and the sum of 1/sigma_j^2 is at most 1/multiplier^2, by
    released numbers only. The rows are drawn from noisy counts: post-processing.
    """
    attributes, scales = plan.attributes, None
    if plan.bought is not None and table is not None:
        scales = importance_at_once(plan.encoding, table, plan.bought,
                                    Randomness.keyed(key, IMPORTANCE), plan.importance_by)
    sigmas = sigmas_for(scales, len(attributes), plan.multiplier)
    label, randomness = attributes[-1], Randomness.keyed(key, NOISE)
    classes = _places(label, rows[:, -1])
    counts = [
        noisy_counts(_places(attribute, rows[:, i]), classes, (bins(attribute), bins(label)),
                     sigmas[i], randomness)
        for i, attribute in enumerate(attributes[:-1])
    ]
    alone = noisy_counts(classes, np.zeros_like(classes), (bins(label), 1), sigmas[-1], randomness)
    drawn = _draw_rows(plan, counts, alone[:, 0], sigmas, Randomness.keyed(key, ROWS))
    names = [attribute.feature.name for attribute in attributes]
    found = {} if scales is None else dict(zip(names[:-1], scales.tolist(), strict=True))
    epsilons = [float(gaussian.epsilon_for(gaussian.rho(((1, s),)), plan.event.delta))
                for s in sigmas]
    return NoisedTable(
        form="marginals", columns=tuple(names),
        values=tuple(tuple(attribute.shown(drawn[:, i]))
                     for i, attribute in enumerate(attributes)),
        moments=tuple(a.feature.name for a in attributes if a.is_moment),
        epsilons=dict(zip(names, epsilons, strict=True)),
        noise={name: f"counts in {bins(attribute)} bins beside the label, noise {sigma:.3g}"
               for name, attribute, sigma in zip(names, attributes, sigmas, strict=True)},
        importance=found, local=0.0, cost=plan.cost,
    )


def sigmas_for(
    scales: npt.NDArray[np.float64] | None, columns: int, multiplier: float
) -> tuple[float, ...]:
    """Return the noise of each attribute's counts, the label's own last.

    Guarantee: the sum of 1/sigma^2 is at most 1/multiplier^2. The least sum of variances, each
    weighed by the attribute's gain, has shares of the divergence that grow with its root.
    """
    weights = np.ones(columns)
    if scales is not None:
        weights[:-1] = scales
        weights[-1] = scales.max()
    shares = weights / weights.sum() * (1 - 2.0**-40)
    return tuple(float(multiplier / math.sqrt(share)) for share in shares)


def noisy_counts(
    places: Values, classes: Values, shape: tuple[int, int], sigma: float, randomness: Randomness
) -> Counts:
    """Return counts of places by classes with noise.

    Guarantee: adding or removing one patient changes one cell by one; every cell, empty or not,
    gets its own exact discrete Gaussian draw of `sigma`.
    """
    cells = np.zeros(shape, dtype=np.int64)
    np.add.at(cells, (places, classes), 1)
    drawn = gaussian.sample(sigma, cells.size, randomness).reshape(cells.shape)
    found: Counts = (cells + drawn).astype(np.float64)
    return found


def bins(attribute: Attribute) -> int:
    """Return in how many bins an attribute is counted; a missing number is the last one's."""
    if not attribute.is_number:
        return attribute.size
    return min(BINS, attribute.size) + attribute.feature.nullable


def _places(attribute: Attribute, values: Values) -> Values:
    if not attribute.is_number:
        return values
    count = min(BINS, attribute.size)
    return np.where(values < 0, count, values * count // attribute.size)


# ---- drawing from released counts ---------------------------------------------------------------


def _draw_rows(
    plan: MarginalPlan, counts: list[Counts], alone: Counts, sigmas: tuple[float, ...],
    randomness: Randomness,
) -> Values:
    """Draw the label of each row, then every attribute by the label: released numbers only.

    Where counts tell no more of the label than noise would, the attribute is drawn without it.
    """
    label = plan.attributes[-1]
    classes = _drawn(projected(alone), plan.rows, randomness)
    columns = []
    for attribute, noisy, sigma in zip(plan.attributes[:-1], counts, sigmas, strict=False):
        tells = information_gain(noisy, sigma, randomness) > 0
        given = noisy if tells else np.repeat(noisy.sum(axis=1, keepdims=True), noisy.shape[1], 1)
        places = np.zeros(plan.rows, dtype=np.int64)
        for k in range(noisy.shape[1]):
            of_class = np.flatnonzero(classes == k)
            places[of_class] = _drawn(projected(given[:, k]), len(of_class), randomness)
        columns.append(_within(attribute, places, randomness))
    columns.append(_within(label, classes, randomness))
    return np.stack(columns, axis=1)


def projected(noisy: Counts) -> Counts:
    """Return the nearest counts that are not negative and have the same sum; none: all alike."""
    total = noisy.sum()
    if not total >= 1:
        return np.ones_like(noisy)
    falling = np.sort(noisy)[::-1]
    over = (np.cumsum(falling) - total) / np.arange(1, len(noisy) + 1)
    last = int(np.flatnonzero(falling - over > 0)[-1])
    found: Counts = np.maximum(noisy - over[last], 0.0)
    return found


def _drawn(weights: Counts, count: int, randomness: Randomness) -> Values:
    """Draw places in proportion to weights."""
    ends = np.cumsum(weights / weights.sum())
    coins = (randomness.uint64(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    found: Values = np.minimum(np.searchsorted(ends, coins, side="right"), len(ends) - 1)
    return found


def _within(attribute: Attribute, places: Values, randomness: Randomness) -> Values:
    """Draw a grid step of each bin."""
    if not attribute.is_number:
        return places
    count = min(BINS, attribute.size)
    first = -(-places * attribute.size // count)
    width = -(-(places + 1) * attribute.size // count) - first
    steps = first + uniform(2**53, len(places), randomness) % np.maximum(width, 1)
    return np.where(places >= count, -1, np.clip(steps, 0, attribute.size - 1))
