"""Why diffprivlib's families are refused: what they state does not hold for one patient more."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest

from models.family import UNSOUND, family_of
from models.run import Settings
from planner.refusal import Refused
from tests.models.patients import encoding


@pytest.mark.parametrize("name", UNSOUND)
def test_they_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(Refused, match="diffprivlib"):
        family_of(name, encoding(3), Settings())


def test_naive_bayes_gives_the_exact_number_of_rows_away() -> None:
    from diffprivlib.models import GaussianNB

    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for rows in (200, 201):
            model = GaussianNB(epsilon=0.01, bounds=(-1, 1)).fit(
                rng.uniform(-1, 1, (rows, 2)), rng.integers(0, 2, rows))
            assert model.class_count_.sum() == rows


def test_one_more_row_moves_other_rows_to_other_trees() -> None:
    """The line of diffprivlib's forest that splits rows, with and without a last row."""
    def trees(rows: int) -> np.ndarray:
        return (np.arange(rows) // (rows / 10)).astype(int)

    assert (trees(101)[:100] != trees(100)).sum() > 1


def test_kmeans_tells_one_row_more_by_its_number_of_iterations() -> None:
    """`n_iter_` is published, and at some size one row more changes it with certainty."""
    from diffprivlib.models import KMeans

    model = KMeans(n_clusters=4, epsilon=1.0, bounds=(-1, 1))
    found = [model._calc_iters(n_dims=3, n_samples=rows) for rows in range(1_000, 8_000)]
    assert any(one != other for one, other in itertools.pairwise(found))
