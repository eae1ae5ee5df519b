"""Marginals: predicted variances against draws, agreement, best shares, coverage of intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mechanisms import gaussian, laplace
from mechanisms.combined import NO_NOISE, CombinedNoise, added
from mechanisms.marginals import (
    Marginal,
    Measured,
    allocate,
    candidates,
    coefficients,
    combined,
    subsets,
)
from mechanisms.randomness import Randomness

SIZES = (2, 3, 4)
TOTAL, A, B, AB, C = (frozenset(s) for s in ((), (0,), (1,), (0, 1), (2,)))
WANTED = dict.fromkeys((TOTAL, A, B, AB, C), 1.0)
FALSE_ALARM = 4.9


def truth(rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(50, SIZES).astype(float)


def table_of(full: np.ndarray, marginal: Marginal) -> np.ndarray:
    return full.sum(axis=tuple(i for i in range(len(SIZES)) if i not in marginal))


def noise_of(
    wanted: Marginal, scales: dict[Marginal, CombinedNoise]
) -> CombinedNoise:
    variances = {m: n.deviation() ** 2 for m, n in scales.items()}
    return added(scales[c.marginal].times(c.factor, c.count)
                 for c in coefficients(wanted, SIZES, variances))


@pytest.mark.parametrize("wanted", list(WANTED), ids=sorted)
def test_exact_marginals_come_back_exactly(wanted: Marginal) -> None:
    full = truth(np.random.default_rng(1))
    for variances in ({AB: 1.0, C: 2.0}, {frozenset((0, 1, 2)): 3.0}, {AB: 0.0, C: 0.0}):
        measured = {m: Measured(table_of(full, m), v) for m, v in variances.items()}
        assert np.allclose(combined(wanted, SIZES, measured), table_of(full, wanted))


def test_what_nothing_covers_is_not_answered() -> None:
    with pytest.raises(ValueError, match="covers"):
        combined(C, SIZES, {AB: Measured(np.zeros((2, 3)), 1.0)})


def test_it_is_the_least_squares_answer() -> None:
    """Against the normal equations of the whole table, solved by numpy."""
    rng = np.random.default_rng(2)
    variances = {TOTAL: 9.0, A: 2.0, AB: 5.0, C: 1.0}
    rows, values, measured = [], [], {}
    for m, v in variances.items():
        cells = table_of(truth(rng), m)
        measured[m] = Measured(cells, v)
        for index in np.ndindex(*cells.shape):
            hit = np.zeros(SIZES)
            place: list[object] = [slice(None)] * 3
            for axis, i in zip(sorted(m), index, strict=True):
                place[axis] = i
            hit[tuple(place)] = 1
            rows.append(hit.ravel() / math.sqrt(v))
            values.append(cells[index] / math.sqrt(v))
    best = np.linalg.lstsq(np.asarray(rows), np.asarray(values), rcond=None)[0].reshape(SIZES)
    for wanted in (TOTAL, A, B, AB, C):
        assert np.allclose(combined(wanted, SIZES, measured), table_of(best, wanted))


@pytest.mark.parametrize("squared", [True, False])
def test_shares_are_best_among_their_neighbours_and_beat_measuring_each(squared: bool) -> None:
    sizes = (2, 8, 24)
    among = candidates(set(WANTED), sizes, 100_000)
    found = allocate(WANTED, sizes, among, squared=squared)
    assert sum(found.shares.values()) == pytest.approx(1)
    each = len(WANTED) ** (3 if squared else 2)
    assert found.cost < (0.45 if squared else 0.7) * each
    rng = np.random.default_rng(3)

    def cost(shares: dict[Marginal, float]) -> float:
        variances = {m: 1 / (s * s if squared else s) for m, s in shares.items()}
        return sum(
            sum(c.factor**2 * c.count * variances[c.marginal]
                for c in coefficients(w, sizes, variances)) for w in WANTED
        )

    assert cost(dict(found.shares)) == pytest.approx(found.cost, rel=1e-6)
    for _ in range(50):
        moved = {m: s * math.exp(rng.normal(0, 0.05)) for m, s in found.shares.items()}
        total = sum(moved.values())
        assert cost({m: s / total for m, s in moved.items()}) >= found.cost * (1 - 1e-4)


def test_candidates_are_unions_and_few() -> None:
    assert candidates({A, B}, SIZES, 100) == [A, B, AB]
    assert candidates({A, B}, SIZES, 5) == [A, B]
    many = {frozenset((i,)) for i in range(8)}
    assert len(candidates(many, (2,) * 8, 1000)) == 9


@pytest.mark.parametrize("law", ["laplace", "gaussian", "both"])
def test_intervals_hold_as_often_as_they_say(law: str) -> None:
    """With the engine's own noise; a wrong scale (0.7 or 1.3 times) would be noticed."""
    draws, randomness = 3_000, Randomness.seeded(5)
    scales = {TOTAL: 9.0, A: 6.0, AB: 8.0, C: 20.0}
    noises, tables = {}, {}
    for i, (m, scale) in enumerate(scales.items()):
        is_laplace = law == "laplace" or (law == "both" and i % 2 == 0)
        noises[m] = CombinedNoise(((scale, 1),), 0.0, 1.0) if is_laplace else (
            CombinedNoise((), scale**2, 1.0))
        shape = [SIZES[axis] for axis in sorted(m)]
        sample = laplace.sample if is_laplace else gaussian.sample
        drawn = sample(scale, draws * math.prod(shape), randomness)
        tables[m] = np.asarray(drawn, dtype=float).reshape([draws, *shape])
    for wanted in (TOTAL, A, B, AB, C):
        noise = noise_of(wanted, noises)
        variances = {m: n.deviation() ** 2 for m, n in noises.items()}
        errors = np.array([
            combined(wanted, SIZES, {m: Measured(t[i], variances[m]) for m, t in tables.items()}
                     ).ravel()[0] for i in range(draws)
        ])
        assert np.std(errors) == pytest.approx(noise.deviation(), rel=0.12)
        for confidence in (0.5, 0.95, 0.99):
            slack = FALSE_ALARM * math.sqrt(confidence * (1 - confidence) / draws)
            held = np.mean(np.abs(errors) <= noise.half_width(confidence))
            assert confidence - slack <= held <= confidence + slack + 0.02
        wrong = np.mean(np.abs(errors) <= 0.7 * noise.half_width(0.95))
        assert wrong < 0.95 - FALSE_ALARM * math.sqrt(0.95 * 0.05 / draws)


def test_quantiles_of_known_laws() -> None:
    one = CombinedNoise(((3.0, 1),))
    for confidence in (0.5, 0.95, 0.999, 0.99999):
        exact = -3.0 * math.log(1 - confidence)
        assert exact <= one.half_width(confidence) <= 1.01 * exact + 0.01
    assert CombinedNoise((), 4.0).half_width(0.95) == pytest.approx(2 * 1.959964, rel=1e-6)
    many = CombinedNoise(((1.0, 5_000),))
    assert many.half_width(0.95) == pytest.approx(100 * 1.959964, rel=0.01)
    assert NO_NOISE.half_width(0.95) == 0


@pytest.mark.parametrize("bad", [((0.0, 1),), ((math.nan, 1),), ((1.0, 0),), ((math.inf, 1),)])
def test_what_is_no_noise_is_refused(bad: tuple[tuple[float, int], ...]) -> None:
    with pytest.raises(ValueError, match="no noise"):
        CombinedNoise(bad)
    with pytest.raises(ValueError, match="no noise"):
        CombinedNoise((), -1.0)


def test_subsets_are_all_and_smallest_first() -> None:
    assert subsets(AB) == [TOTAL, A, B, AB]
