"""Made-up patients: encodings and tables whose rows tests may choose."""

from __future__ import annotations

import numpy as np

from models.encoding import Encoding
from models.table import Table
from planner.training_view import Coding, Feature

TRUTH = Feature("ill", Coding.TRUTH, False)
CLASSES = Feature("kind", Coding.CHOICE, False, values=("a", "b", "c"))
COUNT = Feature("falls", Coding.NUMBER, False, 0.0, 20.0, whole=True)  # read as a count
NUMBER = Feature("days", Coding.NUMBER, False, 0.0, 60.0)


def encoding(width: int, label: Feature = TRUTH) -> Encoding:
    """Return an encoding of `width` numbers from -1 to 1."""
    features = (Feature(f"x{i}", Coding.NUMBER, False, -1.0, 1.0) for i in range(width))
    found = Encoding(tuple(features), label)
    return found.with_counts() if label is COUNT else found


def table(sizes: list[int], width: int, label: Feature = TRUTH, seed: int = 0,
          image: tuple[int, ...] | None = None) -> Table:
    """Return patients with that many rows each."""
    rng = np.random.default_rng(seed)
    rows = sum(sizes)
    targets = {
        "ill": lambda: rng.integers(0, 2, rows), "kind": lambda: rng.integers(0, 3, rows),
        "days": lambda: rng.uniform(-1, 1, rows),
        "falls": lambda: rng.poisson(3, rows).clip(0, 20) / 10,
    }[label.name]()
    pixels = None if image is None else rng.integers(0, 256, (rows, *image)).astype(np.uint8)
    return Table(
        rng.uniform(-1, 1, (rows, width)).astype(np.float32), pixels,
        targets.astype(np.float32), np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
    )
