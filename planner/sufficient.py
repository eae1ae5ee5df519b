"""A training view in, the one statement that adds up products of its encoded columns, out.

Each row becomes numbers in [-1, 1] by declared facts alone, as in models/encoding.py; the row is
scaled to a norm of at most the root of `clip`, divided by how many rows its patient has, and its
products are rounded to whole numbers. So the sums are exact, whatever the order, and a patient's
part of them is bounded by arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.feature import Coding, Feature, scaled_ends
from planner.functions.entry import double
from planner.training_view import TrainingView

SUM_MAX = 2.0**62  # what a BIGINT sum over 2^31 patients may reach
PATIENTS_MAX = 2**31  # the snapshot numbers patients with an INTEGER
GRID_MAX = 2**30
# Room for float rounding in a row's norm and products, of a bound; far more than they can be off.
ROUNDING = 2.0**-30


@dataclass(frozen=True, slots=True)
class Products:
    """Which products are added up: pairs of places in the row of columns, and how rows are bounded.

    `clip` bounds the squared norm of the row of columns in `clipped` (None: rows are not scaled,
    and `reach` bounds the squared norm of a row's products). One grid step is 1/`grid`.
    """

    columns: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    reach: float
    clip: float | None = None

    @property
    def grid(self) -> int:
        """Steps to one: a power of two, so large that noise hides them, so small that sums fit."""
        room = math.log2(SUM_MAX / PATIENTS_MAX / (1 + math.sqrt(self.reach)))
        return min(GRID_MAX, 1 << max(0, math.floor(room - 1)))

    def distance(self, rows: int) -> int:
        """Return how far one patient with at most `rows` rows moves all sums, in grid steps, L2.

        Guarantee: the mean over a patient's rows of vectors of norm at most R has norm at most R;
        rounding moves each of its `rows` parts by at most half a step a coordinate.
        """
        bound = self.grid * math.sqrt(self.reach) * (1 + ROUNDING)
        return math.ceil(bound + rows * math.sqrt(len(self.pairs)) / 2) + 1


def input_columns(features: tuple[Feature, ...]) -> tuple[str, ...]:
    """Return each input of the view as an expression over the view's columns c1, c2, ..."""
    return tuple(
        text for place, feature in enumerate(features, start=1)
        for text in _inputs(f"c{place}", feature)
    )


def _inputs(name: str, feature: Feature) -> tuple[str, ...]:
    if feature.coding is Coding.CHOICE:
        return tuple(_is(name, i + 1) for i in range(len(feature.values)))
    if feature.coding is Coding.BUCKETS:
        return tuple(_is(name, i + 1) for i in range(feature.buckets))
    scaled = scaled_column(name, feature)
    missing = f"CASE WHEN isfinite({name}) THEN 0e0 ELSE 1e0 END"
    return (scaled, missing) if feature.nullable else (scaled,)


def scaled_column(name: str, feature: Feature) -> str:
    """Return a number scaled by its bounds; what is missing is 0."""
    middle, half = scaled_ends(feature)
    scaled = f"LEAST(GREATEST(({name} - {double(middle)}) / {double(half)}, -1e0), 1e0)"
    return f"CASE WHEN isfinite({name}) THEN {scaled} ELSE 0e0 END"


def class_columns(place: int, label: Feature, classes: int) -> tuple[str, ...]:
    """Return one column for each class of the label: 1 in the rows of that class."""
    name = f"c{place}"
    if label.coding is Coding.CHOICE:
        return tuple(_is(name, i + 1) for i in range(classes))
    return (f"CASE WHEN {name} > 0.5e0 THEN 0e0 ELSE 1e0 END",
            f"CASE WHEN {name} > 0.5e0 THEN 1e0 ELSE 0e0 END")


def _is(name: str, code: int) -> str:
    return f"CASE WHEN {name} = {code} THEN 1e0 ELSE 0e0 END"


def products_statement(view: TrainingView, products: Products, chosen: str = "TRUE") -> str:
    """Print the statement of all sums: one row, one whole number for each pair.

    `chosen` is a condition on the patient's number `u` (see `coin`).

    Guarantee: one patient moves the row of sums by at most `products.distance(view.rows)` in L2
    norm, exactly: every part is a whole number computed from one row and the number of that
    patient's rows, so neither order nor other patients change it. No value of the view makes it
    fail or overflow.
    """
    listed = ", ".join(f"{text} AS z{i}" for i, text in enumerate(products.columns))
    scale = f"{products.grid}e0 / n"
    if products.clip is not None:
        square = " + ".join(f"z{i} * z{i}" for i in range(len(products.columns)))
        scale = f"{scale} * LEAST(1e0, {double(products.clip)} / GREATEST({square}, 1e-9))"
    sums = ", ".join(
        f"COALESCE(CAST(SUM(CAST(round(z{i} * z{j} * s) AS BIGINT)) AS BIGINT), 0) AS s{place}"
        for place, (i, j) in enumerate(products.pairs, start=1)
    )
    return (
        f"SELECT {sums} FROM (SELECT *, {scale} AS s FROM (SELECT n, {listed} FROM "
        f"(SELECT *, COUNT(*) OVER (PARTITION BY u) AS n FROM ({view.statement}) AS v "
        f"WHERE {chosen}) AS counted) AS coded) AS scaled"
    )


def coin(key: bytes, share: float, held: bool) -> str:
    """Print which patients are held out (or are not): a coin for each, keyed by the run's secret.

    Guarantee: the coins depend on the key and on a number of the snapshot, never on a value; to
    whoever lacks the key they are independent and fall with probability `share`.
    """
    toss = f"CAST('0x' || left(sha256('{key.hex()}:' || u), 12) AS BIGINT)"
    return f"{toss} {'<' if held else '>='} {math.floor(share * 2**48)}"
