"""The price of what was released: events and the ledger's Renyi order in, a privacy loss out."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from mechanisms import curve, gaussian, laplace, repetition, sampled, shuffling
from mechanisms.event import (
    Event,
    ExponentialEvent,
    GaussianEvent,
    GradualEvent,
    LaplaceEvent,
    PureEvent,
    RepeatedEvent,
    SampledGaussianEvent,
    ShuffledEvent,
    ThresholdEvent,
)
from mechanisms.gradual import scales_of
from mechanisms.loss import PrivacyLoss

_ZERO = Fraction(0)


@dataclass(frozen=True, slots=True)
class ExactPrice:
    """Exact upper bounds for one event; `quoted_delta` is the part of delta rail B is spared."""

    epsilon: Fraction
    delta: Fraction
    rdp: Fraction
    quoted_delta: Fraction


def loss_of(events: tuple[Event, ...], order: Fraction) -> PrivacyLoss:
    """Return what these events cost together.

    Guarantee: on rail A basic composition of (epsilon, delta), on rail B the sum of the Renyi
    divergences at `order` with the deltas that no order removes; both hold whatever earlier
    answers the later events were chosen by. Sums are exact; each is rounded once, upwards.
    """
    prices = [price(event, order) for event in events]
    return PrivacyLoss.of(
        sum((p.epsilon for p in prices), _ZERO),
        sum((p.delta for p in prices), _ZERO),
        sum((p.rdp for p in prices), _ZERO),
        sum((p.quoted_delta for p in prices), _ZERO),
    )


def price(event: Event, order: Fraction) -> ExactPrice:
    """Return the price of one event on both rails, before any rounding to decimals.

    Guarantee: each line is an upper bound by the docstring of what it calls. The exponential
    mechanism's log-ratio lies in an interval of length epsilon, so by Hoeffding's lemma its
    divergence at order a is at most a epsilon^2/8 (Cesar and Rogers 2021).
    """
    order = laplace.check_order(order)
    match event:
        case LaplaceEvent(l1, scale):
            epsilon = Fraction(l1) / Fraction(scale)
            return ExactPrice(epsilon, _ZERO, laplace.rdp(l1, scale, order), _ZERO)
        case GaussianEvent(parts, delta):
            rho = gaussian.rho(parts)
            return ExactPrice(curve.epsilon_of(parts, delta), delta, order * rho, delta)
        case ThresholdEvent(delta):
            return ExactPrice(_ZERO, delta, _ZERO, _ZERO)
        case PureEvent(epsilon):
            return ExactPrice(epsilon, _ZERO, laplace.pure_rdp(epsilon, order), _ZERO)
        case ExponentialEvent(epsilon):
            pure = laplace.pure_rdp(epsilon, order)
            bounded_range = order * epsilon * epsilon / 8
            return ExactPrice(epsilon, _ZERO, min(pure, bounded_range), _ZERO)
        case GradualEvent(l1, scale, _):
            return price(LaplaceEvent(l1, scale), order)  # coarser levels follow from the finest
        case SampledGaussianEvent(branches, delta):
            # A unit is in one branch only, by a coin: the dearer branch bounds the mixture.
            epsilon = max(sampled.epsilon_for(branch, delta) for branch in branches)
            rdp = max(sampled.rdp(branch, order) for branch in branches)
            return ExactPrice(epsilon, delta, rdp, delta)
        case ShuffledEvent(local, rows, delta):
            # (epsilon, delta)-DP is within delta of epsilon-DP, so rail B pays delta as well.
            epsilon = shuffling.amplified(local, rows, delta)
            return ExactPrice(epsilon, delta, laplace.pure_rdp(epsilon, order), _ZERO)
        case RepeatedEvent():
            return _repeated(event, order)
    raise ValueError(f"not a privacy event: {event!r}")


@lru_cache(maxsize=256)
def _repeated(event: RepeatedEvent, order: Fraction) -> ExactPrice:
    """Return the price of the best of K runs, or of what follows it where that is dearer.

    Guarantee: a run is drawn from settings that are public, and a unit is in one of its branches by
    a coin, so the largest divergence among all branches bounds that of a run at every order; a
    unit that is in no branch sees the runs as they are without it.
    """
    law = repetition.Repetitions(event.law, event.gamma)

    def curve(at: Fraction) -> Fraction:
        return max(sampled.rdp(branch, at) for branch in event.branches)

    epsilon = max(repetition.epsilon_for(curve, law, event.delta),
                  sampled.epsilon_for(event.once, event.delta))
    rdp = max(repetition.rdp(curve, law, order), sampled.rdp(event.once, order))
    return ExactPrice(epsilon, event.delta, rdp, event.delta)


def levels_of(events: tuple[Event, ...]) -> int:
    """Return how many levels these events may be settled at; 0 where nothing is gradual."""
    found = {event.levels for event in events if isinstance(event, GradualEvent)}
    if len(found) > 1:
        raise ValueError(f"the levels of one charge must be equally many, got {sorted(found)}")
    return found.pop() if found else 0


def revealed(events: tuple[Event, ...], level: int) -> tuple[Event, ...]:
    """Return what was released when the levels up to `level` (0: the coarsest) were seen.

    Guarantee: what is seen up to a level is a post-processing of that level (gradual.sample), so
    for every output that ends there the probabilities on neighbours differ by at most
    exp(epsilon of these events). Which level it was is a part of the output.
    """
    if not (type(level) is int and 0 <= level < levels_of(events)):
        raise ValueError(f"no level {level!r}; there are {levels_of(events)}")
    return tuple(
        LaplaceEvent(event.l1, scales_of(event.scale, event.levels)[level])
        if isinstance(event, GradualEvent) else event
        for event in events
    )
