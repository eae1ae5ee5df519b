"""The normal curve bounds discrete Gaussian noise: against mpmath, and by summing it all up."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import numpy.typing as npt
import pytest

from mechanisms import curve, gaussian

Floats = npt.NDArray[np.float64]
EPSILONS = ["0.1", "0.5", "1", "2", "8"]
DELTAS = ["1e-5", "1e-6", "1e-9", "1e-12"]
each_budget = pytest.mark.parametrize(
    ("epsilon", "delta"), [(Fraction(e), Fraction(d)) for e in EPSILONS for d in DELTAS]
)
exact = mpmath.mp.clone()
exact.prec = 400


def number(x: Fraction) -> mpmath.mpf:
    return exact.mpf(x.numerator) / x.denominator


def normal_delta(shift: Fraction, epsilon: Fraction) -> mpmath.mpf:
    """Balle and Wang 2018, theorem 8, in 400 bits."""
    m, e = number(shift), number(epsilon)
    far = exact.ncdf(-m / 2 - e / m)
    return exact.ncdf(m / 2 - e / m) - exact.exp(e) * far


def law(sigma: float, shift: int) -> tuple[Floats, Floats]:
    """Return the log-probabilities of discrete Gaussian noise on two neighbours, shift apart."""
    reach = int(9 * sigma) + 2 * shift + 20
    k = np.arange(-reach, reach + 1, dtype=float)
    total = math.log(math.fsum(np.exp(-0.5 * (k / sigma) ** 2)))
    return -0.5 * (k / sigma) ** 2 - total, -0.5 * ((k - shift) / sigma) ** 2 - total


def true_delta(shifts: tuple[tuple[int, float], ...], epsilon: Fraction) -> float:
    """Sum max(0, P - exp(epsilon) Q) over all outcomes of independent (shift, sigma)."""
    log_p, log_q = np.zeros(1), np.zeros(1)
    for shift, sigma in shifts:
        p, q = law(sigma, shift)
        log_p, log_q = (np.add.outer(a, b).ravel() for a, b in ((log_p, p), (log_q, q)))
    beyond = np.maximum(0, -np.expm1(float(epsilon) + log_q - log_p)) * np.exp(log_p)
    return math.fsum(beyond)


# The normal curve


@pytest.mark.parametrize("shift", ["1/1000", "1/20", "1/3", "1", "5", "70"])
@pytest.mark.parametrize("epsilon", ["0", "1/1000", "1/2", "1", "4", "20", "64"])
def test_delta_is_above_the_normal_curve_and_close(shift: str, epsilon: str) -> None:
    m, e = Fraction(shift), Fraction(epsilon)
    above, truth = number(curve.delta_above(m, e)), normal_delta(m, e)
    assert truth <= above <= truth + exact.mpf(2) ** -140


def test_delta_grows_with_the_shift_and_falls_with_epsilon() -> None:
    shifts = [Fraction(n, 20) for n in range(1, 80, 7)]
    epsilons = [Fraction(n, 10) for n in range(0, 60, 7)]
    for e in epsilons:
        found = [curve.delta_above(m, e) for m in shifts]
        assert found == sorted(found)
    for m in shifts:
        found = [curve.delta_above(m, e) for e in epsilons]
        assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(
    ("shift", "epsilon"), [(0, 1), (-1, 1), (1, -1), (1, 65), (math.nan, 1)]
)
def test_what_has_no_curve_is_refused(shift: float, epsilon: float) -> None:
    with pytest.raises(ValueError, match="are needed"):
        curve.delta_above(shift, epsilon)  # type: ignore[arg-type]


# The lemma


@pytest.mark.parametrize("smoothing", [0.15, 0.25, 0.4])
@pytest.mark.parametrize("sigma", [0.8, 1.3, 3.0])
def test_rounding_at_random_gives_the_discrete_law_up_to_its_factor(
    smoothing: float, sigma: float
) -> None:
    """With so little smoothing that the factor can be seen; the real one is 1e-34."""
    if sigma**2 <= smoothing:
        return
    terms = [math.exp(-2 * math.pi**2 * smoothing * j**2) for j in range(1, 9)]
    tau = 2 * sum(terms)
    k = np.arange(-60, 61)
    x = np.arange(-12 * sigma, 12 * sigma, 1 / 256)
    normal = np.exp(-0.5 * x**2 / (sigma**2 - smoothing))
    normal /= normal.sum()
    kernel = np.exp(-0.5 * (k[:, None] - x[None, :]) ** 2 / smoothing)
    rounded = (kernel / kernel.sum(axis=0) * normal).sum(axis=1)
    discrete = np.exp(-0.5 * (k / sigma) ** 2)
    discrete /= discrete.sum()
    seen = discrete > 1e-12
    ratio = discrete[seen] / rounded[seen]
    assert (1 - tau) / (1 + tau) - 1e-9 <= ratio.min()
    assert ratio.max() <= 1 + tau + 1e-9
    assert ratio.max() - ratio.min() > 1e-7


def test_tau_is_above_the_sum_and_nothing_that_could_be_seen() -> None:
    pi = exact.pi
    truth = 2 * sum(exact.exp(-2 * pi**2 * curve.SMOOTHING * j**2) for j in range(1, 20))
    assert truth < number(curve.TAU) < truth * exact.mpf("1.1")
    bend = curve.PARTS_PLANNED * gaussian.DRAWS_MAX * curve.TAU
    assert bend < Fraction(1, 10**15)


# The discrete law itself

ONE = [((1, s),) for s in (2.1, 3.0, 4.7)] + [((3, 9.0),), ((2, 20.0),), ((10, 40.3),)]
TWO = [
    ((1, 3.0), (1, 3.0)), ((1, 2.5), (2, 6.0)), ((3, 8.0), (1, 4.0)), ((2, 10.0), (5, 23.7)),
    ((1, 7.0), (0, 7.0)),
]


@pytest.mark.parametrize("delta", ["1e-3", "1e-5", "1e-8"])
@pytest.mark.parametrize("shifts", [*ONE, *TWO], ids=str)
def test_true_delta_is_never_above_the_stated_one(
    shifts: tuple[tuple[int, float], ...], delta: str
) -> None:
    parts = tuple((shift**2, sigma) for shift, sigma in shifts if shift)
    epsilon = curve.epsilon_of(parts, Fraction(delta))
    assert 0 < true_delta(shifts, epsilon) <= float(delta)
    assert epsilon <= gaussian.epsilon_for(gaussian.rho(parts), Fraction(delta))


@pytest.mark.parametrize("shifts", [((30, 100.0),), ((5, 90.5), (7, 60.25))], ids=str)
@pytest.mark.parametrize("delta", ["1e-3", "1e-6"])
def test_nothing_is_wasted_where_the_grid_is_fine(
    shifts: tuple[tuple[int, float], ...], delta: str
) -> None:
    epsilon = curve.epsilon_of(tuple((s**2, sigma) for s, sigma in shifts), Fraction(delta))
    assert true_delta(shifts, epsilon) > 0.97 * float(delta)
    assert true_delta(shifts, epsilon * Fraction(99, 100)) > float(delta)


@pytest.mark.parametrize(("epsilon", "delta"), [("1/2", "1e-4"), ("1", "1e-5"), ("3", "1e-6")])
@pytest.mark.parametrize("shift", [((2, 1),), ((9, 1),), ((2, 1), (1, 2)), ((1, 1), (1, 3))])
def test_calibrated_noise_is_enough_and_seven_tenths_of_it_is_not(
    epsilon: str, delta: str, shift: tuple[tuple[int, int], ...]
) -> None:
    """Each (shift, weight): two columns have unequal parts of the joint noise."""
    e, d = Fraction(epsilon), Fraction(delta)
    z, whole = curve.multiplier_for(e, d), sum(w for _, w in shift)
    sigmas = [math.sqrt(z * z * s * s * whole / w + curve.SMOOTHING) for s, w in shift]
    stated = tuple((s, sigma) for (s, _), sigma in zip(shift, sigmas, strict=True))
    assert true_delta(stated, e) <= float(d)
    assert curve.epsilon_of(tuple((s**2, sigma) for s, sigma in stated), d) <= e
    less = tuple((s, 0.7 * sigma) for s, sigma in stated)
    assert true_delta(less, e) > float(d)
    assert curve.epsilon_of(tuple((s**2, sigma) for s, sigma in less), d) > e


def test_a_second_part_may_be_chosen_by_the_first() -> None:
    """The second question moves by 2 if the first answer favours the guess, else not at all."""
    parts = ((1, 3.0), (4, 5.0))
    delta = Fraction(1, 10**4)
    epsilon = curve.epsilon_of(parts, delta)
    first_p, first_q = law(3.0, 1)
    total = []
    for direction, threshold in itertools.product((1, -1), (-3, -1, 0, 1, 3)):
        middle = len(first_p) // 2
        k = direction * (np.arange(len(first_p)) - middle)
        beyond = 0.0
        for asked in (True, False):
            p, q = law(5.0, 2 if asked else 0)
            picked = (k >= threshold) == asked
            log_p = np.add.outer(first_p[picked], p).ravel()
            log_q = np.add.outer(first_q[picked], q).ravel()
            ratio = -np.expm1(float(epsilon) + log_q - log_p)
            beyond += math.fsum(np.maximum(0, ratio) * np.exp(log_p))
        total.append(beyond)
    assert float(delta) / 50 < max(total) <= float(delta)


# Multipliers


@each_budget
def test_multiplier_meets_its_delta_and_is_the_smallest(epsilon: Fraction, delta: Fraction) -> None:
    z = Fraction(curve.multiplier_for(epsilon, delta))
    assert normal_delta(1 / z, epsilon) <= number(delta)
    assert normal_delta(1 / (z * (1 - Fraction(1, 10**9))), epsilon) > number(delta)
    assert z < Fraction(gaussian.multiplier_for(epsilon, delta)) * Fraction(97, 100)


@each_budget
def test_epsilon_comes_back_from_the_multiplier(epsilon: Fraction, delta: Fraction) -> None:
    """Asking for 0.5 must cost 0.5, not 0.500000000001, or two of them exceed a budget of 1."""
    z = curve.multiplier_for(epsilon, delta)
    for count, l2_squared in ((1, 2**40), (1, 100), (12, 7)):
        sigma = math.sqrt(z * z * l2_squared * count + curve.SMOOTHING)
        found = curve.epsilon_of(((l2_squared, sigma),) * count, delta)
        assert found <= epsilon
        if z * z * l2_squared * count > 100 * curve.SMOOTHING:
            assert epsilon - Fraction(1, 10**12) < found


def test_multiplier_falls_with_epsilon_and_delta() -> None:
    found = [[curve.multiplier_for(Fraction(e), Fraction(d)) for d in DELTAS] for e in EPSILONS]
    for row in found:
        assert row == sorted(row)
    for column in zip(*found, strict=True):
        assert list(column) == sorted(column, reverse=True)


def test_epsilon_falls_with_sigma_and_grows_with_parts_and_shifts() -> None:
    delta = Fraction(1, 10**6)
    sigmas = (0.5, 1.9, 2.1, 3.0, 9.0, 80.0, 2.0**30)
    by_sigma = [curve.epsilon_of(((5, s),), delta) for s in sigmas]
    assert by_sigma == sorted(by_sigma, reverse=True)
    by_shift = [curve.epsilon_of(((n, 12.0),), delta) for n in (1, 2, 5, 9, 1000, 10**6)]
    assert by_shift == sorted(by_shift)
    by_parts = [curve.epsilon_of(((1, 12.0),) * n, delta) for n in (1, 2, 5, 9, 100)]
    assert by_parts == sorted(by_parts)


def test_where_the_curve_says_nothing_rho_does() -> None:
    delta = Fraction(1, 10**6)
    for parts in (((1, 2.0),), ((1, 0.3), (1, 100.0)), ((10**9, 30.0),)):
        assert curve.epsilon_of(parts, delta) == gaussian.epsilon_for(gaussian.rho(parts), delta)
    tiny = Fraction(1, 10**60)
    assert curve.multiplier_for(Fraction(1), tiny) == gaussian.multiplier_for(Fraction(1), tiny)
    assert curve.epsilon_of(((1, 2.0**38),), delta) < Fraction(1, 10**9)


@pytest.mark.parametrize("sigma", [2.0 + 2.0**-40, 2.01, 2.1, 2.5, 4.0, 10.0])
@pytest.mark.parametrize("l2_squared", [1, 100, 2**20, 2**60])
@pytest.mark.parametrize("delta", ["0.9", "1e-3", "1e-12", "1e-60"])
def test_hardly_any_noise_has_a_price_too(sigma: float, l2_squared: int, delta: str) -> None:
    """The curve is flat there, and the smoothing may leave hardly any noise."""
    parts, d = ((l2_squared, sigma),), Fraction(delta)
    assert 0 <= curve.epsilon_of(parts, d) <= gaussian.epsilon_for(gaussian.rho(parts), d)


@pytest.mark.parametrize("epsilon", ["1e-9", "1e-5", "40", "64", "65", "1000"])
@pytest.mark.parametrize("delta", ["0.9", "1e-2", "1e-12", "1e-45", "1e-60"])
def test_every_budget_has_a_multiplier(epsilon: str, delta: str) -> None:
    e, d = Fraction(epsilon), Fraction(delta)
    assert 0 < curve.multiplier_for(e, d) <= gaussian.multiplier_for(e, d)


GOLDEN = {
    ("1", "1e-5"): 3.730632,
    ("0.1", "1e-9"): 50.209818,
    ("3", "1e-6"): 1.543861,
}


def test_golden_multipliers() -> None:
    """Any change here changes what every query costs."""
    found = {(e, d): round(curve.multiplier_for(Fraction(e), Fraction(d)), 6) for e, d in GOLDEN}
    assert found == GOLDEN


def test_more_numbers_than_the_proof_covers_are_not_drawn() -> None:
    from mechanisms.randomness import Randomness

    with pytest.raises(ValueError, match="nor more than"):
        gaussian.sample(3.0, gaussian.DRAWS_MAX + 1, Randomness.seeded(1))
