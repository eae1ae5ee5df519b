"""Patients' rows and a priced plan in, a table of noised rows out.

Each row is noised by itself, attribute by attribute, and the rows are shuffled. The number of rows
is public and the same for every database: rows of dummies, drawn from the declared domains and
noised like all others, fill it up, and beyond it patients are left out by a fair choice. After
Utaliyeva, Shin and Choi 2023 an attribute that tells more of the label gets more of a row's
epsilon; what it tells is bought first (models/importance.py), and never read off the rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mechanisms import gaussian, laplace
from mechanisms.event import Event, PureEvent, SampledGaussianEvent, ShuffledEvent
from mechanisms.loss import PrivacyLoss
from mechanisms.pricing import loss_of
from mechanisms.randomized_response import kept_chance, respond, uniform
from mechanisms.randomness import Randomness
from mechanisms.shuffling import local_for
from models.encoding import Encoding
from models.importance import importance_at_once
from models.table import Table
from planner.feature import Coding, Feature
from planner.refusal import Refused

LEVELS: Final = 2**16  # of a number, at most: equal parts of its bounds
DAY: Final = 86_400
NULL_SHARE: Final = Fraction(1, 5)  # of a nullable number's epsilon, for whether it is there
SHARE_BITS: Final = 20
# Places of a table's randomness: what is bought, which rows stand where, and their noise.
IMPORTANCE, ROWS, NOISE = 1, 2, 3
CELLS_MAX: Final = 5_000_000
KINDS: Final = (Coding.NUMBER, Coding.TRUTH, Coding.MOMENT, Coding.CHOICE)
Values = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Attribute:
    """A column as integers: places of categories, or grid steps from the low bound of a number.

    `size` counts them; a category that may be NULL has one more, the last.
    """

    feature: Feature
    size: int

    @classmethod
    def of(cls, feature: Feature) -> Attribute:
        """Read a column of the view. Raises Refused for what cannot be released."""
        if feature.coding not in KINDS:
            raise Refused("training-view", f"{feature.name} cannot be released in a table: its "
                          f"values ({feature.coding.value}) are no declared list and have no "
                          "bounds", "a category, a boolean, a date or a bounded number")
        if feature.coding is Coding.TRUTH:
            return cls(feature, 2 + feature.nullable)
        if feature.coding is Coding.CHOICE:
            return cls(feature, len(feature.values) + feature.nullable)
        width = feature.high - feature.low
        unit = 1 if feature.whole else DAY if feature.coding is Coding.MOMENT else 0
        whole = unit and width / unit == math.floor(width / unit) and width / unit < LEVELS
        return cls(feature, int(width / unit) + 1 if whole else LEVELS if width > 0 else 1)

    @property
    def is_moment(self) -> bool:
        """Whether it is a date or a timestamp."""
        return self.feature.coding is Coding.MOMENT

    @property
    def is_number(self) -> bool:
        """Whether it gets Laplace noise; a category gets randomized response."""
        return self.feature.coding in (Coding.NUMBER, Coding.MOMENT)

    def read(self, column: Any) -> Values:
        """Return a column of the statement as integers; a missing number is -1.

        Guarantee: every entry lies in [-1, size - 1], whatever the column holds.
        """
        feature = self.feature
        if feature.coding is Coding.CHOICE:
            codes = np.asarray(column, dtype=np.int64)
            missing = self.size - 1 if feature.nullable else 0
            return np.where((codes >= 1) & (codes <= len(feature.values)), codes - 1, missing)
        values = np.asarray(column, dtype=np.float64)
        there = np.isfinite(values)
        if feature.coding is Coding.TRUTH:
            found = (np.where(there, values, 0.0) > 0.5).astype(np.int64)
            return np.where(there, found, 2) if feature.nullable else found
        safe = np.clip(np.where(there, values, feature.low), feature.low, feature.high)
        width = feature.high - feature.low
        steps = np.rint((safe - feature.low) / (width or 1.0) * (self.size - 1)).astype(np.int64)
        return np.where(there | (not feature.nullable), np.clip(steps, 0, self.size - 1), -1)

    def drawn(self, count: int, randomness: Randomness) -> Values:
        """Return values of dummies: uniform over the declared domain."""
        return uniform(self.size, count, randomness)

    def noised(self, values: Values, epsilon: Fraction, randomness: Randomness) -> Values:
        """Return one noised value for each value, which again may be -1 for a missing number.

        Guarantee: for any two values of a row the chances of every outcome differ by at most
        exp(epsilon). A category: randomized response. A number: discrete Laplace noise on
        integers that lie within size - 1 of each other, then clamped, which is
        post-processing; where it may be missing, NULL_SHARE of epsilon says by randomized response
        whether it is shown, and a missing one is noised like a dummy's.
        """
        if not self.is_number:
            return respond(values, self.size, epsilon, randomness)
        if not self.feature.nullable:
            return self._moved(values, epsilon, randomness)
        flags = respond((values < 0).astype(np.int64), 2, NULL_SHARE * epsilon, randomness)
        filled = np.where(values < 0, self.drawn(len(values), randomness), values)
        moved = self._moved(filled, (1 - NULL_SHARE) * epsilon, randomness)
        return np.where(flags == 1, -1, moved)

    def _moved(self, steps: Values, epsilon: Fraction, randomness: Randomness) -> Values:
        if self.size == 1:
            return np.zeros_like(steps)
        noise = laplace.sample(laplace.scale_for(self.size - 1, epsilon), len(steps), randomness)
        return np.clip(steps + noise, 0, self.size - 1)

    def shown(self, values: Values) -> list[Any]:
        """Return noised integers as values people read; NULL is None."""
        feature = self.feature
        if feature.coding is Coding.TRUTH:
            return [(False, True, None)[v] for v in values.tolist()]
        if feature.coding is Coding.CHOICE:
            listed = (*feature.values, None)
            return [listed[v] for v in values.tolist()]
        step = (feature.high - feature.low) / max(1, self.size - 1)
        found = [None if v < 0 else feature.low + v * step for v in values.tolist()]
        return [round(x) if x is not None and (feature.whole or feature.coding is Coding.MOMENT)
                else x for x in found]

    def says(self, epsilon: Fraction) -> str:
        """Say what was done to it."""
        if self.size == 1:
            return "constant"
        if not self.is_number:
            return f"kept with chance {kept_chance(self.size, epsilon):.3f} of {self.size}"
        share = 1 - NULL_SHARE if self.feature.nullable else 1
        return f"Laplace noise of {1 / float(share * epsilon):.3g} times its width, then clamped"


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePlan:
    """A table before it is paid: free to ask, and the same for every database of the policy.

    `rows` is how many rows it will have, `local` the epsilon that one noised row has by itself,
    `share` of the price buys the importance of the attributes, with `multiplier` as its noise.
    """

    encoding: Encoding
    rows: int
    local: Fraction
    share: Fraction
    multiplier: float | None
    importance_by: str
    events: tuple[Event, ...]
    cost: PrivacyLoss

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """All columns, the label last."""
        return attributes_of(self.encoding)

    def facts(self) -> dict[str, Any]:
        """Return all of it as plain values: what is hashed."""
        return {"form": "rows", "encoding": self.encoding.to_dict(), "rows": self.rows,
                "local": str(self.local), "share": str(self.share), "multiplier": self.multiplier,
                "importance_by": self.importance_by, "levels": LEVELS,
                "null_share": str(NULL_SHARE)}

    def __str__(self) -> str:
        columns = len(self.encoding.features) + 1
        even = float(self.local) / columns
        bought = "even shares" if self.multiplier is None else (
            f"by noisy importance ({self.importance_by}), for {float(self.share):.0%} of the price")
        return "\n".join((
            f"a table of {self.rows:,} noised rows and {columns} columns, for "
            f"{self.encoding.label.name}",
            f"  cost              {self.cost}",
            f"  one row           epsilon {float(self.local):.4g} by itself; shuffled it costs "
            "what the table costs",
            f"  one attribute     epsilon {even:.3g} on average, {bought}",
            f"  a yes or no       is kept with chance {kept_chance(2, self.local / columns):.3f} "
            "at that average",
        ))


def attributes_of(encoding: Encoding) -> tuple[Attribute, ...]:
    """Return all columns, the label last. Raises Refused for what cannot be released."""
    label = replace(encoding.label, nullable=False)  # rows without it are left out
    return tuple(map(Attribute.of, (*encoding.features, label)))


def check_share(encoding: Encoding, rows: int, share: float) -> None:
    """Refuse a table of too many cells, of columns that none can have, or of no such share."""
    columns = len(attributes_of(encoding))
    if not 0 <= share <= 0.5:
        raise Refused("model", f"importance cannot be {share!r}", "importance=0.2")
    if rows * columns > CELLS_MAX:
        raise Refused("too-large", f"a table of {rows:,} rows and {columns} columns is too large",
                      f"fewer columns: at most {CELLS_MAX:,} cells")


def plan_table(
    encoding: Encoding, rows: int, share: float, importance_by: str, epsilon: Fraction,
    delta: Fraction, order: Fraction,
) -> TablePlan:
    """Work out the noise of a row from epsilon, before any row is read.

    Guarantee: the events are fixed here. Adding or removing a patient replaces one of the rows
    that are noised and shuffled (`padded`), so they are one ShuffledEvent, or a PureEvent where
    shuffling gains nothing; the importance is one Gaussian release before it.
    """
    check_share(encoding, rows, share)
    if not delta > 0:
        raise Refused("delta", "a released table needs a delta above zero", "delta=1e-6")
    part = Fraction(round(share * 2**SHARE_BITS), 2**SHARE_BITS)
    parts: list[Event] = []
    multiplier, left = None, delta
    try:
        if part > 0:
            left = delta / 2
            multiplier = gaussian.multiplier_for(part * epsilon, delta - left)
            multiplier = math.nextafter(multiplier * (1 + 2.0**-18), math.inf)
            parts.append(SampledGaussianEvent((((1.0, multiplier, 1),),), delta - left))
        target = (1 - part) * epsilon
        local = local_for(target, rows, left)
        # The smallest part that an attribute may get must be noise that can be drawn.
        laplace.scale_for(LEVELS, (1 - NULL_SHARE) * local / 2 ** (SHARE_BITS + 1))
        shuffled = local > target
        parts.append(ShuffledEvent(local, rows, left) if shuffled else PureEvent(local))
    except ValueError as problem:
        raise Refused("epsilon", f"no table has this price: {problem}",
                      "an epsilon between 0.1 and 10") from None
    events = tuple(parts)
    return TablePlan(
        encoding=encoding, rows=rows, local=local, share=part, multiplier=multiplier,
        importance_by=importance_by, events=events, cost=loss_of(events, order),
    )


# ---- the rows ----------------------------------------------------------------------------------


def gathered(chunks: Iterable[tuple[Any, ...]], attributes: tuple[Attribute, ...]) -> Values:
    """Return [patients, attributes]. Private.

    Guarantee: one row a patient, the first that the statement gives, whatever it gives.
    """
    parts, owners = [], []
    for unit, *columns in chunks:
        owners.append(np.asarray(unit, dtype=np.int64))
        parts.append(np.stack([attribute.read(column) for attribute, column in zip(
            attributes, columns, strict=True)], axis=1))
    if not parts:
        return np.zeros((0, len(attributes)), dtype=np.int64)
    _, first = np.unique(np.concatenate(owners), return_index=True)
    found: Values = np.concatenate(parts)[first]
    return found


def padded(
    rows: Values, count: int, attributes: tuple[Attribute, ...], randomness: Randomness
) -> Values:
    """Return exactly `count` rows in a random order: patients' and dummies', or a choice of them.

    Guarantee: count is public. Where there are fewer patients, one patient more stands where a
    dummy stood; where there are more, a fair choice leaves out others, and one patient more takes
    the place of one chosen row, or of none: so two neighbours are the same mixture of tables that
    differ in one row. The order is uniformly random and tells nothing of the database's.
    """
    order = _shuffled(len(rows), randomness)[:count]
    missing = count - len(order)
    dummies = np.stack([attribute.drawn(missing, randomness) for attribute in attributes], axis=1)
    whole = np.concatenate([rows[order], dummies])
    found: Values = whole[_shuffled(count, randomness)]
    return found


def _shuffled(count: int, randomness: Randomness) -> Values:
    """Return a uniformly random order: by keys of 128 bits, so that none are equal."""
    found: Values = np.lexsort((randomness.uint64(count), randomness.uint64(count)))
    return found


def noised_rows(
    rows: Values, epsilons: tuple[Fraction, ...], attributes: tuple[Attribute, ...],
    randomness: Randomness,
) -> Values:
    """Return the rows with noise on every attribute.

    Guarantee: rows are noised independently; in each the chances of every outcome change by at
    most exp(sum of epsilons) with its values.
    """
    return np.stack([
        attribute.noised(rows[:, i], epsilon, randomness)
        for i, (attribute, epsilon) in enumerate(zip(attributes, epsilons, strict=True))
    ], axis=1)


def split_by(
    scales: npt.NDArray[np.float64] | None, columns: int, local: Fraction
) -> tuple[Fraction, ...]:
    """Return each attribute's epsilon, the label's last: they sum to at most `local`.

    By released numbers only. An attribute's share grows with its gain, the square of its scale, to
    the power 2/3; the label gets as much as the attribute with most.
    """
    if scales is None:
        return (local / columns,) * columns
    weights = [float(u) ** (4 / 3) for u in scales]
    weights.append(max(weights))
    whole = sum(weights)
    parts = [Fraction(max(1, math.floor(w / whole * 2**SHARE_BITS)), 2**SHARE_BITS)
             for w in weights]
    total = max(Fraction(1), sum(parts, Fraction(0)))
    return tuple(local * part / total for part in parts)


def noised_table(
    plan: TablePlan, rows: Values, table: Table | None, key: bytes
) -> NoisedTable:
    """Buy importance, divide a row's epsilon by it, fill up, shuffle and noise: all that leaves.

    `key` is a fresh secret, from which all randomness comes.

    Guarantee: plan.events, one after another. Importance is of all patients in `table`, whose rows
    are `rows`.
    """
    attributes = plan.attributes
    scales = None
    if plan.multiplier is not None and table is not None:
        scales = importance_at_once(plan.encoding, table, plan.multiplier,
                                    Randomness.keyed(key, IMPORTANCE), plan.importance_by)
    epsilons = split_by(scales, len(attributes), plan.local)
    whole = padded(rows, plan.rows, attributes, Randomness.keyed(key, ROWS))
    noisy = noised_rows(whole, epsilons, attributes, Randomness.keyed(key, NOISE))
    names = [attribute.feature.name for attribute in attributes]
    found = {} if scales is None else dict(zip(names[:-1], scales.tolist(), strict=True))
    return NoisedTable(
        form="rows", columns=tuple(names),
        values=tuple(tuple(attribute.shown(noisy[:, i]))
                     for i, attribute in enumerate(attributes)),
        moments=tuple(a.feature.name for a in attributes if a.is_moment),
        epsilons=dict(zip(names, map(float, epsilons), strict=True)),
        noise={n: a.says(e) for n, a, e in zip(names, attributes, epsilons, strict=True)},
        importance=found, local=float(plan.local), cost=plan.cost,
    )


# ---- what an analyst holds ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NoisedTable:
    """A released table. It is public: what is done with it costs nothing.

    `values` are columns; columns of `moments` are seconds since 1970. `noise` says what was done to
    each attribute, `importance` what divided the price. In the form "rows" `epsilons` is each
    attribute's part of what one row has by itself (`local`), and some rows are dummies; in the
    form "marginals" it is what an attribute's counts would cost alone, and no row is a patient's.
    """

    form: str
    columns: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...] = field(repr=False)
    moments: tuple[str, ...]
    epsilons: Mapping[str, float]
    noise: Mapping[str, str]
    importance: Mapping[str, float]
    local: float
    cost: PrivacyLoss
    cached: bool = False
    is_private: bool = True

    def __len__(self) -> int:
        return len(self.values[0])

    def to_pandas(self) -> Any:
        """Return a data frame; dates and timestamps as datetime64."""
        import pandas as pd

        frame = pd.DataFrame(dict(zip(self.columns, self.values, strict=True)))
        for name in self.moments:
            frame[name] = pd.to_datetime(frame[name], unit="s")
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"form": self.form, "columns": self.columns, "values": self.values,
                "moments": self.moments, "epsilons": dict(self.epsilons), "noise": dict(self.noise),
                "importance": dict(self.importance), "local": self.local}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], cost: PrivacyLoss) -> NoisedTable:
        """Read what `to_dict` wrote."""
        return cls(
            fields["form"], tuple(fields["columns"]), tuple(map(tuple, fields["values"])),
            tuple(fields["moments"]), fields["epsilons"], fields["noise"], fields["importance"],
            fields["local"], cost, cached=True,
        )

    def __str__(self) -> str:
        stamp = "" if self.is_private else "NOT PRIVATE  "
        width = max(map(len, self.columns))
        lines = [f"{stamp}{len(self):,} rows drawn from noisy counts, cost {self.cost}"]
        if self.form == "rows":
            lines = [f"{stamp}{len(self):,} noised rows (patients and dummies), cost {self.cost}",
                     f"one row by itself: epsilon {self.local:.4g}"]
        lines += [f"  {name:{width}}  epsilon {self.epsilons[name]:.3g}, {self.noise[name]}"
                  for name in self.columns]
        return "\n".join(lines)

