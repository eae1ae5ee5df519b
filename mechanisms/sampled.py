"""Gaussian noise on Poisson samples: phases of a training run in, its losses on both rails out.

Rail B is computed here, in exact arithmetic. Rail A is the privacy-loss distribution of the
fixed run, from dp_accounting, which is loaded when the first training run is priced.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from mechanisms.bounds import exp_bounds, log_bounds, round_up_dyadic
from mechanisms.conversion import epsilon_at
from mechanisms.event import MULTIPLIER_MAX, MULTIPLIER_MIN, Phase
from mechanisms.repetition import Repetitions
from mechanisms.repetition import epsilon_for as best_of

# dp_accounting works in floats; its pessimistic rounding is far larger than their errors.
_EPSILON_MARGIN = Fraction(1, 10**6)
_DELTA_KEPT = Fraction(1023, 1024)  # the rest of delta pays for noise that lies on a grid
_INTERVAL = 5e-4
_WORK = 256


def rdp(phases: tuple[Phase, ...], order: Fraction) -> Fraction:
    """Return the Renyi divergence of the phases at `order`, rounded up.

    Guarantee: for whole orders a >= 2 one step has divergence at most ln A(a) / (a - 1) in both
    directions, A(a) = sum_k C(a, k) (1 - q)^(a - k) q^k exp((k^2 - k)/(2 z^2)) (Mironov, Talwar
    and Zhang 2019, theorem 5 and section 3.3). ln A is the cumulant function of the privacy
    loss, so it is convex in the order, and zero at order 1: between whole orders it lies below
    the chord. Divergences of steps chosen one after another add.
    """
    if not order > 1:
        raise ValueError(f"a Renyi order must be above 1, got {order!r}")
    total = Fraction(0)
    for rate, multiplier, steps in phases:
        total += steps * _step_rdp(rate, multiplier, order)
    return total


@lru_cache(maxsize=4096)
def _step_rdp(rate: float, multiplier: float, order: Fraction) -> Fraction:
    square = Fraction(multiplier) ** 2
    if rate == 1.0:
        return round_up_dyadic(order / (2 * square), 160)
    low = math.floor(order)
    share = order - low
    total = (1 - share) * _log_moment(rate, square, low)
    if share:
        total += share * _log_moment(rate, square, low + 1)
    return round_up_dyadic(min(total / (order - 1), order / (2 * square)), 160)


@lru_cache(maxsize=4096)
def _log_moment(rate: float, square: Fraction, order: int) -> Fraction:
    """Return an upper bound of ln A(order); 0 at order 1."""
    if order == 1:
        return Fraction(0)
    q = Fraction(rate)
    if Fraction(order * order - order, 2) / square > 2**15:
        # exp would not fit: q^k <= 1 and the binomials sum to at most one.
        return Fraction(order * order - order, 2) / square
    total = Fraction(0)
    for k in range(order + 1):
        weight = math.comb(order, k) * (1 - q) ** (order - k) * q**k
        total += round_up_dyadic(
            weight * exp_bounds(Fraction(k * k - k, 2) / square, _WORK)[1], 4 * _WORK
        )
    return max(Fraction(0), log_bounds(total, _WORK)[1])


@lru_cache(maxsize=1024)
def epsilon_for(phases: tuple[Phase, ...], delta: Fraction) -> Fraction:
    """Return the epsilon at `delta` of the phases in a row, rounded up.

    Guarantee: the run is fixed in advance, so its privacy-loss distribution composes by
    convolution (Koskela et al. 2020; Doroshenko et al. 2022 for the rounding, which is
    pessimistic in both directions of adding and removing a unit). The distribution is that of
    continuous noise. Ours lies on a grid of 2**34 steps a sigma, counts too (models/counts.py):
    noise on whole numbers alone has a larger delta. It differs from a rounded continuous draw by
    less than 2**-60 in total variation a coordinate, for which a share of
    delta is kept back. Float errors inside dp_accounting are not certified: a margin is added.
    """
    accountant = _accounting()
    bounded = accountant.pld.PLDAccountant(
        accountant.NeighboringRelation.ADD_OR_REMOVE_ONE,
        value_discretization_interval=_interval(phases),
    )
    for rate, multiplier, steps in _joined(phases):
        bounded.compose(accountant.PoissonSampledDpEvent(
            rate, accountant.GaussianDpEvent(multiplier)
        ) if rate < 1 else accountant.GaussianDpEvent(multiplier), steps)
    found = float(bounded.get_epsilon(float(delta * _DELTA_KEPT)))
    if not 0 <= found < math.inf:
        raise ValueError(f"a run with noise {phases!r} has no finite epsilon at this delta")
    return round_up_dyadic(Fraction(found) * (1 + _EPSILON_MARGIN) + _EPSILON_MARGIN)


def _interval(phases: tuple[Phase, ...]) -> float:
    """Steps in proportion to the spread of the loss: rounding stays pessimistic, time bounded."""
    widest = math.sqrt(sum(steps / (multiplier * multiplier)
                           * (rate * rate if rate < 1 else 1)
                           for rate, multiplier, steps in phases))
    return min(max(widest / 1000, 1e-6), _INTERVAL) if widest < 10 else widest / 20_000


def _joined(phases: tuple[Phase, ...]) -> list[Phase]:
    """All releases over everybody are one Gaussian: sums of squares of 1/z add exactly."""
    whole = sum(steps / (multiplier * multiplier)
                for rate, multiplier, steps in phases if rate == 1.0)
    found: list[Phase] = [phase for phase in phases if phase[0] < 1.0]
    if whole > 0:
        found.append((1.0, math.nextafter(1 / math.sqrt(whole), 0.0), 1))
    return found


class _Accounting:
    """The names of dp_accounting that are used here."""

    def __init__(self) -> None:
        import dp_accounting
        from dp_accounting import pld

        self.pld = pld
        self.NeighboringRelation = dp_accounting.NeighboringRelation
        self.PoissonSampledDpEvent = dp_accounting.PoissonSampledDpEvent
        self.GaussianDpEvent = dp_accounting.GaussianDpEvent


@lru_cache(maxsize=1)
def _accounting() -> _Accounting:
    return _Accounting()


def multiplier_for(
    phases_at: Callable[[float], tuple[Phase, ...]], epsilon: Fraction, delta: Fraction
) -> float:
    """Return a noise multiplier z, within 0.2 % of the smallest, with epsilon_for at most epsilon.

    `phases_at` gives the phases for a z; their loss must fall as z grows. Guarantee: the
    returned z was priced and found within epsilon. Raises ValueError where none is.
    """
    def fits(z: float) -> bool:
        return epsilon_for(phases_at(z), delta) <= epsilon

    low, high = _bracket(phases_at, epsilon, delta)
    while not fits(high):
        low, high = high, high * 1.25
        if high > MULTIPLIER_MAX / 2:
            raise ValueError(f"no noise up to {high:g} reaches epsilon {float(epsilon):g}")
    while high / low > 1.002:
        middle = _short(math.sqrt(low * high))
        if not low < middle < high:
            break
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def repeated_multiplier_for(
    phases_at: Callable[[float], tuple[Phase, ...]], law: Repetitions, epsilon: Fraction,
    delta: Fraction,
) -> float:
    """Return a noise multiplier z, within 0.2 % of the smallest, of runs whose best costs epsilon.

    Guarantee: the returned z was priced (mechanisms/repetition.py) and found within epsilon.
    Raises ValueError where none is.
    """
    def fits(z: float) -> bool:
        phases = phases_at(z)
        return best_of(lambda order: rdp(phases, order), law, delta) <= epsilon

    low, high = 2 * MULTIPLIER_MIN, 2.0**20
    if not fits(high):
        raise ValueError(f"no noise up to {high:g} reaches epsilon {float(epsilon):g}")
    while high / low > 1.002:
        middle = _short(math.sqrt(low * high))
        if not low < middle < high:
            break
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _bracket(
    phases_at: Callable[[float], tuple[Phase, ...]], epsilon: Fraction, delta: Fraction
) -> tuple[float, float]:
    """Find about where z lies by Renyi divergences, which are quick and a little pessimistic."""
    orders = [Fraction(n) for n in (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)]
    low, high = 2 * MULTIPLIER_MIN, 2.0**20
    while high / low > 1.02:
        z = _short(math.sqrt(low * high))
        phases = phases_at(z)
        if any(epsilon_at(a, rdp(phases, a), delta) <= epsilon for a in orders):
            high = z
        else:
            low = z
    return _short(max(2 * MULTIPLIER_MIN, low * 0.85)), high


def _short(z: float) -> float:
    """Round to 20 bits, so that exact arithmetic on it stays short."""
    mantissa, exponent = math.frexp(z)
    return math.ldexp(round(mantissa * 2**20), exponent - 20)
