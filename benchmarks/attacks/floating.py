"""The last bits of an answer: which floating-point numbers can come out tells what went in.

Mironov 2012; Casacuberta et al. 2022. With noise in floating point a count of 1 gives answers that
a count of 0 never gives and the other way round; seen once, they identify it whatever epsilon is.
The attacker guesses from what is impossible under one of the two, and by size where nothing is.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attacks.curators import Kind, curator, one_table

GRID = 2**53  # below 1/GRID no sum of 1 and a float of noise has bits
DECLARED = one_table("sick: boolean")


def certain(answers: list[float]) -> float:
    """Return the share of answers that a count of 1 cannot give: no multiple of 2^-53."""
    return float(np.mean([(Fraction(abs(a)) * GRID).denominator != 1 for a in answers]))


def float_noise(count: int, draws: int) -> list[float]:
    """Answer a count with the floating-point Laplace noise of diffprivlib at epsilon 1."""
    from diffprivlib.mechanisms import Laplace

    mechanism = Laplace(epsilon=1.0, sensitivity=1.0)
    return [mechanism.randomise(float(count)) for _ in range(draws)]


def released(folder: Path, count: int, draws: int) -> list[float]:
    """Answer a count again and again at epsilon 1 by the engine, with nobody adding up."""
    columns: dict[str, Any] = {"id": np.arange(20), "sick": np.arange(20) < count}
    with curator(Kind.UNBUDGETED, folder, columns, DECLARED) as asked:
        found = [asked.ask("SELECT COUNT(*) FROM people WHERE sick", 1.0) for _ in range(draws)]
    return [float(rows[0][0]) for rows in found if rows is not None]


def identified(draw: Callable[[int], list[float]]) -> float:
    """Return the share of answers to a count of 0 that prove it is no 1."""
    if certain(draw(1)) > 0:
        raise ValueError("a count of 1 gave what it cannot give; the attack is wrong")
    return certain(draw(0))
