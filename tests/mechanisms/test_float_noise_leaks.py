"""Why no release uses a float mechanism: its answers tell a count of 0 from a count of 1."""

from __future__ import annotations

import numpy as np
import pytest

from mechanisms import laplace
from mechanisms.randomness import Randomness

DRAWS = 20_000


def off_the_grid(answers: list[float]) -> float:
    """Return the share of answers that are no multiple of 2**-53: impossible if the count is 1."""
    scaled = np.abs(np.array(answers)) * 2.0**53
    return float(np.mean(scaled != np.floor(scaled)))


def test_float_laplace_identifies_a_count_of_0_or_1_with_certainty() -> None:
    mechanisms = pytest.importorskip("diffprivlib.mechanisms", reason="diffprivlib is missing")
    float_laplace = mechanisms.Laplace(epsilon=1.0, sensitivity=1.0)
    none = [float_laplace.randomise(0.0) for _ in range(DRAWS)]
    one = [float_laplace.randomise(1.0) for _ in range(DRAWS)]
    assert 0.15 < off_the_grid(none) < 0.27
    assert off_the_grid(one) == 0


def test_ours_never_leaves_the_integers_whatever_the_count() -> None:
    draws = laplace.sample(1.0, DRAWS, Randomness.secure())
    for count in (0, 1):
        answers = count + draws
        assert answers.dtype == np.int64
        assert off_the_grid(answers.tolist()) == 0
