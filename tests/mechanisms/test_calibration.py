"""Scales, multipliers, quantiles, thresholds: right against independent sums, and rounded up."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import reference
from dp_accounting import dp_event
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import rdp_privacy_accountant as rdp_accounting

from mechanisms import gaussian, laplace, threshold

EPSILONS = ["0.1", "0.5", "1", "2", "8"]
DELTAS = ["1e-5", "1e-6", "1e-9", "1e-12"]
each_budget = pytest.mark.parametrize(
    ("epsilon", "delta"), [(Fraction(e), Fraction(d)) for e in EPSILONS for d in DELTAS]
)
exact = mpmath.mp.clone()
exact.prec = 300


def cks_delta(rho: float, epsilon: float) -> float:
    """min over a of exp((a - 1)(a rho - epsilon))/(a - 1) (1 - 1/a)^a, by brute force."""
    a = 1 + np.geomspace(1e-3, 1e7, 400_000)
    log = (a - 1) * (a * rho - epsilon) - np.log(a - 1) + a * np.log1p(-1 / a)
    return float(np.exp(log.min()))


# Laplace


@pytest.mark.parametrize("l1", [1, 3, 1000, 2**30])
@pytest.mark.parametrize("epsilon", ["0.1", "0.5", "1", "3", "1/3", "7/10"])
def test_laplace_scale_is_the_smallest_float_that_is_enough(l1: int, epsilon: str) -> None:
    scale = laplace.scale_for(l1, Fraction(epsilon))
    needed = Fraction(l1) / Fraction(epsilon)
    assert Fraction(math.nextafter(scale, 0)) < needed <= Fraction(scale)


@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0, 10.0, 1000.0, 2.0**20])
@pytest.mark.parametrize("confidence", [0.01, 0.5, 0.9, 0.95, 0.999, 1 - 2**-53])
def test_laplace_quantile_is_the_smallest(scale: float, confidence: float) -> None:
    q = exact.exp(-1 / exact.mpf(scale))

    def inside(h: int) -> mpmath.mpf:
        return 1 - 2 * q ** (h + 1) / (1 + q) if h >= 0 else exact.mpf(0)

    h = laplace.quantile(scale, confidence)
    assert inside(h) >= confidence
    assert inside(h - 1) < confidence


@pytest.mark.parametrize("scale", [0.3, 1.0, 10.0, 1000.0])
def test_laplace_deviation(scale: float) -> None:
    k = np.arange(1, 60_000)
    weights = np.exp(-k / scale)
    truth = math.sqrt(2 * float((k * k * weights).sum()) / (1 + 2 * float(weights.sum())))
    assert laplace.deviation(scale) == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("scale", [0.5, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("order", [Fraction(3, 2), Fraction(7), Fraction(22), Fraction(25, 2)])
@pytest.mark.parametrize("l1", [1, 2, 5])
def test_laplace_rdp_is_never_below_the_exact_divergence(
    l1: int, scale: float, order: Fraction
) -> None:
    """Summed over the integers; for a count (l1 = 1) the bound is attained."""
    reach = int(60 * scale * float(order)) + 60
    k = np.arange(-reach, reach + l1)
    a = float(order)
    log_ratio_sum = -(a * np.abs(k) + (1 - a) * np.abs(k - l1)) / scale
    log_normaliser = math.log(math.tanh(0.5 / scale))
    top = log_ratio_sum.max()
    divergence = (top + math.log(np.exp(log_ratio_sum - top).sum()) + log_normaliser) / (a - 1)
    bound = float(laplace.rdp(l1, scale, order))
    assert bound >= divergence - 1e-12
    if l1 == 1:
        assert bound == pytest.approx(divergence, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("order", [Fraction(101, 100), Fraction(22), Fraction(10_000)])
@pytest.mark.parametrize("epsilon", ["1e-9", "0.01", "1", "20", "40", "1000"])
def test_pure_rdp_is_below_both_simple_bounds(epsilon: str, order: Fraction) -> None:
    e = Fraction(epsilon)
    bound = laplace.pure_rdp(e, order)
    assert 0 < bound <= min(e, order * e * e / 2) + Fraction(1, 2**90)
    a, x = (exact.mpf(f.numerator) / f.denominator for f in (order, e))
    curve = exact.log(exact.exp(a * x) + exact.exp((1 - a) * x)) - exact.log(1 + exact.exp(x))
    assert float(bound) >= float(curve / (a - 1)) * (1 - 1e-9)


def test_the_continuous_formula_would_undercharge_a_count() -> None:
    a, e = 22, 0.1
    continuous = math.log(
        a / (2 * a - 1) * math.exp((a - 1) * e) + (a - 1) / (2 * a - 1) * math.exp(-a * e)
    ) / (a - 1)
    assert float(laplace.rdp(1, 10.0, Fraction(22))) > continuous * 1.01


# Gaussian


@each_budget
def test_multiplier_meets_its_delta_and_is_the_smallest(epsilon: Fraction, delta: Fraction) -> None:
    z = gaussian.multiplier_for(epsilon, delta)
    assert cks_delta(1 / (2 * z * z), float(epsilon)) <= float(delta) * (1 + 1e-7)
    less = z * (1 - 1e-6)
    assert cks_delta(1 / (2 * less * less), float(epsilon)) > float(delta)


@each_budget
def test_multiplier_is_at_least_the_exact_one_and_not_far_above(
    epsilon: Fraction, delta: Fraction
) -> None:
    """Exact (epsilon, delta) of the continuous law: Balle and Wang 2018, theorem 8."""
    z, e = exact.mpf(gaussian.multiplier_for(epsilon, delta)), exact.mpf(float(epsilon))

    def delta_at(m: mpmath.mpf) -> mpmath.mpf:
        return exact.ncdf(0.5 / m - e * m) - exact.exp(e) * exact.ncdf(-0.5 / m - e * m)

    assert delta_at(z) <= float(delta)
    assert delta_at(z * 0.85) > float(delta)


@each_budget
def test_the_discrete_law_itself_keeps_epsilon_and_delta(
    epsilon: Fraction, delta: Fraction
) -> None:
    """Hockey-stick divergence of neighbouring discrete Gaussians, summed over the integers."""
    z = gaussian.multiplier_for(epsilon, delta)
    for l2 in (1, 2):
        sigma = z * l2
        k = np.arange(-int(60 * sigma) - 60, int(60 * sigma) + 60)
        log_p, log_q = -0.5 * (k / sigma) ** 2, -0.5 * ((k + l2) / sigma) ** 2
        p = np.exp(log_p) / np.exp(log_p).sum()
        beyond = np.maximum(0, -np.expm1(float(epsilon) + log_q - log_p)) * p
        assert beyond.sum() <= float(delta)


@each_budget
def test_epsilon_comes_back_from_the_multiplier(epsilon: Fraction, delta: Fraction) -> None:
    """Asking for 0.5 must cost 0.5, not 0.500000000001, or two of them exceed a budget of 1."""
    z = gaussian.multiplier_for(epsilon, delta)
    charged = gaussian.epsilon_for(gaussian.rho(((1, z),)), delta)
    assert epsilon - Fraction(1, 10**12) < charged <= epsilon
    split = gaussian.rho(tuple((4, z * 2 * math.sqrt(3)) for _ in range(3)))
    assert epsilon - Fraction(1, 10**12) < gaussian.epsilon_for(split, delta) <= epsilon


@each_budget
def test_epsilon_agrees_with_dp_accounting(epsilon: Fraction, delta: Fraction) -> None:
    z = gaussian.multiplier_for(epsilon, delta)
    orders = list(1 + np.geomspace(1e-2, 1e5, 4_000))
    peer = rdp_accounting.RdpAccountant(orders)
    peer.compose(dp_event.GaussianDpEvent(z))
    assert peer.get_epsilon(float(delta)) == pytest.approx(float(epsilon), rel=1e-4)


def test_golden_multipliers() -> None:
    """Any change here changes what every query costs."""
    found = {
        (e, d): round(gaussian.multiplier_for(Fraction(e), Fraction(d)), 6)
        for e in EPSILONS
        for d in ("1e-6", "1e-9")
    }
    assert found == GOLDEN


GOLDEN = {
    ("0.1", "1e-6"): 39.46392,
    ("0.1", "1e-9"): 53.128626,
    ("0.5", "1e-6"): 8.676631,
    ("0.5", "1e-9"): 11.246337,
    ("1", "1e-6"): 4.530877,
    ("1", "1e-9"): 5.778695,
    ("2", "1e-6"): 2.381591,
    ("2", "1e-9"): 2.984596,
    ("8", "1e-6"): 0.689292,
    ("8", "1e-9"): 0.826004,
}


def test_multiplier_is_the_same_each_time() -> None:
    gaussian.multiplier_for.cache_clear()
    first = gaussian.multiplier_for(Fraction(1), Fraction(1, 10**6))
    gaussian.multiplier_for.cache_clear()
    assert gaussian.multiplier_for(Fraction(1), Fraction(1, 10**6)) == first


def test_no_noise_costs_and_no_shift_does_not() -> None:
    assert gaussian.epsilon_for(Fraction(0), Fraction(1, 10**6)) == 0
    assert gaussian.epsilon_for(Fraction(1, 10**30), Fraction(1, 10**6)) == 0
    assert gaussian.epsilon_for(Fraction(10**4), Fraction(1, 10**6)) > 10**4


@pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0, 10.0, 60.0, 128.0, 129.0, 199.5])
@pytest.mark.parametrize("confidence", [0.1, 0.5, 0.9, 0.95, 0.999, 1 - 2**-40])
def test_gaussian_quantile_is_the_smallest(sigma: float, confidence: float) -> None:
    h = gaussian.quantile(sigma, confidence)
    assert h >= 0
    missing = 1 - confidence
    assert 2 * gaussian_tail(sigma, h + 1) <= missing * (1 + 1e-9)
    assert h == 0 or 2 * gaussian_tail(sigma, h) > missing * (1 - 1e-9)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0, 3.9, 4.1, 50.0])
def test_gaussian_deviation(sigma: float) -> None:
    k = np.arange(1, 4_000)
    weights = np.exp(-0.5 * (k / sigma) ** 2)
    truth = math.sqrt(2 * float((k * k * weights).sum()) / (1 + 2 * float(weights.sum())))
    assert gaussian.deviation(sigma) == pytest.approx(truth, rel=1e-9, abs=1e-300)


# Thresholds

KEY_DELTAS = [
    Fraction(1, 3),
    Fraction("1e-3"),
    Fraction("1e-6"),
    Fraction("1e-9"),
    Fraction("1e-30"),
]


def laplace_tail(scale: float, m: int) -> mpmath.mpf:
    """P(Z >= m) for m >= 0 by summing terms far out, at 300 bits."""
    q = exact.exp(-1 / exact.mpf(scale))
    terms = sum(q**k for k in range(m, m + int(120 * scale) + 120))
    return terms * (1 - q) / (1 + q)


def gaussian_tail(sigma: float, m: int) -> mpmath.mpf:
    """P(Z >= m) by the plain sum, in floats of 60 bits scaled to the first term."""
    reach = int(40 * sigma) + 40
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    k = np.arange(m, m + reach, dtype=float)
    first = exact.exp(-(exact.mpf(m) ** 2) / (2 * exact.mpf(sigma) ** 2))
    return first * math.fsum(np.exp(-(k * k - float(m) ** 2) / (2 * sigma**2))) / math.fsum(weights)


@pytest.mark.parametrize("scale", [0.1, 0.3, 1.0, 7.3, 40.0])
@pytest.mark.parametrize("delta_key", KEY_DELTAS)
def test_laplace_threshold_is_the_smallest(scale: float, delta_key: Fraction) -> None:
    tau = threshold.laplace_threshold(scale, delta_key)
    limit = exact.mpf(delta_key.numerator) / delta_key.denominator
    assert laplace_tail(scale, tau - 1) <= limit
    assert tau - 2 < 0 or laplace_tail(scale, tau - 2) > limit


@pytest.mark.parametrize("sigma", [0.1, 0.3, 1.0, 7.3, 127.9, 128.1, 1000.0])
@pytest.mark.parametrize("delta_key", KEY_DELTAS)
def test_gaussian_threshold_is_the_smallest(sigma: float, delta_key: Fraction) -> None:
    tau = threshold.gaussian_threshold(sigma, delta_key)
    limit = exact.mpf(delta_key.numerator) / delta_key.denominator
    assert gaussian_tail(sigma, tau - 1) <= limit * (1 + exact.mpf(10) ** -9)
    assert gaussian_tail(sigma, tau - 2) > limit * (1 - exact.mpf(10) ** -9)


def test_published_threshold_formula() -> None:
    """tau = 1 + ceil(t ln(1/(d (1 + exp(-1/t)))))."""
    for t, d in ((10.0, 1e-9), (2.5, 1e-6), (333.0, 1e-12)):
        written = 1 + math.ceil(t * math.log(1 / (d * (1 + math.exp(-1 / t)))))
        assert threshold.laplace_threshold(t, Fraction(d)) == written


@pytest.mark.parametrize("groups", [1, 2, 7, 1000, 10**6])
@pytest.mark.parametrize("delta", ["1e-2", "1e-6", "1e-9", "1e-30"])
def test_all_keys_of_a_unit_together_keep_delta(groups: int, delta: str) -> None:
    d1 = threshold.delta_per_key(Fraction(delta), groups)
    one = exact.mpf(d1.numerator) / d1.denominator
    together = -exact.expm1(groups * exact.log1p(-one))
    assert together <= exact.mpf(Fraction(delta).numerator) / Fraction(delta).denominator
    assert d1 * groups > Fraction(delta) * Fraction(99, 100)


def test_threshold_shows_a_single_unit_as_rarely_as_it_says() -> None:
    from mechanisms.randomness import Randomness

    tau = threshold.laplace_threshold(2.0, Fraction(1, 1000))
    shown = int((1 + laplace.sample(2.0, 400_000, Randomness.seeded(1)) >= tau).sum())
    below = reference.laplace_below(2.0, tau - 1)
    assert 1 - below <= 1e-3
    assert abs(shown - 400_000 * (1 - below)) < 120


# What is refused

NOT_POSITIVE = [0, -1, Fraction(-1, 2), float("nan")]


@pytest.mark.parametrize("bad", NOT_POSITIVE)
def test_epsilon_must_be_positive(bad: Fraction) -> None:
    with pytest.raises(ValueError, match="epsilon must be positive"):
        laplace.scale_for(1, bad)
    with pytest.raises(ValueError, match="epsilon must be positive"):
        gaussian.multiplier_for(bad, Fraction(1, 10**6))
    with pytest.raises(ValueError, match="epsilon must be positive"):
        laplace.pure_rdp(bad, Fraction(2))


@pytest.mark.parametrize("bad", [*NOT_POSITIVE, 1, float("inf")])
def test_delta_must_lie_between_0_and_1(bad: Fraction) -> None:
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        gaussian.multiplier_for(Fraction(1), bad)
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        gaussian.epsilon_for(Fraction(1), bad)
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        threshold.delta_per_key(bad, 1)


@pytest.mark.parametrize("bad", [0, -1, 1.0, True, float("nan"), np.int64(0)])
def test_sensitivities_are_positive_integers(bad: int) -> None:
    with pytest.raises(ValueError, match="integer >= 1"):
        laplace.scale_for(bad, Fraction(1))
    with pytest.raises(ValueError, match="integer >= 1"):
        gaussian.rho(((bad, 1.0),))
    with pytest.raises(ValueError, match="integer >= 1"):
        threshold.delta_per_key(Fraction(1, 10), bad)


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_confidence_lies_between_0_and_1(bad: float) -> None:
    for law in (laplace, gaussian):
        with pytest.raises(ValueError, match="confidence"):
            law.quantile(1.0, bad)


@pytest.mark.parametrize("bad", [Fraction(1, 2), Fraction(0), Fraction(-1), Fraction(1, 2**161)])
def test_a_key_delta_is_small_but_not_absurd(bad: Fraction) -> None:
    for tau in (threshold.laplace_threshold, threshold.gaussian_threshold):
        with pytest.raises(ValueError, match="delta of a key"):
            tau(1.0, bad)


@pytest.mark.parametrize("bad", [1, Fraction(1, 2), 0, -2, float("nan"), float("inf")])
def test_a_renyi_order_is_finite_and_above_1(bad: Fraction) -> None:
    with pytest.raises(ValueError, match="Renyi order"):
        laplace.rdp(1, 1.0, bad)


def test_multiplier_agrees_with_an_independent_pld() -> None:
    """The conversion may not promise less noise than dp_accounting's own PLD needs."""
    for epsilon in (0.5, 1.0, 2.0):
        z = gaussian.multiplier_for(Fraction(epsilon), Fraction(1, 10**6))
        one = pld.from_gaussian_mechanism(z, use_connect_dots=True)
        assert one.get_delta_for_epsilon(epsilon) <= 1e-6
