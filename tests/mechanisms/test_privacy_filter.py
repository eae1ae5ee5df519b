"""The two rails under attack: adversaries that choose each step by the answers so far."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mechanisms import conversion
from mechanisms.event import Event, GaussianEvent, LaplaceEvent, PureEvent, ThresholdEvent
from mechanisms.filter import Filter, order_for
from mechanisms.loss import PrivacyLoss
from mechanisms.pricing import loss_of

EPSILON, DELTA = 1.0, 1e-6
ONE = Filter.for_budget(Decimal(1), Decimal("1e-6"))
Profile = Callable[[float], float]  # epsilon -> delta


def response_profile(epsilon0: float, times: int) -> Profile:
    """Exact delta of `times` randomized responses."""
    truth = stats.binom(times, 1 / (1 + math.exp(-epsilon0)))
    lie = stats.binom(times, 1 / (1 + math.exp(epsilon0)))

    def delta(epsilon: float) -> float:
        return sum(
            max(0.0, float(truth.pmf(k)) - math.exp(epsilon) * float(lie.pmf(k)))
            for k in range(times + 1)
            if (2 * k - times) * epsilon0 > epsilon
        )

    return delta


def gaussian_profile(mu: float) -> Profile:
    """Exact delta of the Gaussian mechanism with sensitivity/sigma = mu (Balle, Wang 2018)."""

    def delta(epsilon: float) -> float:
        above = stats.norm.sf(epsilon / mu - mu / 2)
        return max(0.0, float(above - math.exp(epsilon) * stats.norm.sf(epsilon / mu + mu / 2)))

    return delta


def after_response(epsilon0: float, on_truth: Profile, on_lie: Profile) -> Profile:
    """Exact delta of one randomized response whose outcome chooses what follows."""
    truth = 1 / (1 + math.exp(-epsilon0))
    return lambda epsilon: (
        truth * on_truth(epsilon - epsilon0) + (1 - truth) * on_lie(epsilon + epsilon0)
    )


# The published two-step counterexample

FIRST, MU, FOLDS, EACH = 0.02, 0.23587, 12, 0.082084


def test_profiles_alone_accept_what_breaks_the_promise_adaptively() -> None:
    smooth, coarse = gaussian_profile(MU), response_profile(EACH, FOLDS)
    for branch in (smooth, coarse):
        assert after_response(FIRST, branch, branch)(EPSILON) <= DELTA
    adaptive = max(
        after_response(FIRST, smooth, coarse)(EPSILON),
        after_response(FIRST, coarse, smooth)(EPSILON),
    )
    assert adaptive == pytest.approx(1.31e-6, rel=0.005)


def test_the_filter_refuses_the_counterexample() -> None:
    """It admits the Gaussian branch or the other, but not both of them, after the first step."""
    first = loss_of((PureEvent(Fraction(2, 100)),), ONE.order)
    smooth = loss_of((GaussianEvent(((1, 1 / MU),), Fraction(1, 10**9)),), ONE.order)
    coarse = loss_of((PureEvent(Fraction("0.082084")),) * FOLDS, ONE.order)
    assert ONE.admits(PrivacyLoss.zero(), first)
    assert not (ONE.admits(first, smooth) and ONE.admits(first, coarse))


# Every adversary of a family: at each step the best move that the filter admits


def affordable_responses(spent: PrivacyLoss, epsilon0: Fraction) -> int:
    one, times = loss_of((PureEvent(epsilon0),), ONE.order), 0
    while ONE.admits(spent, one):
        spent, times = spent + one, times + 1
    return times


def affordable_mu(spent: PrivacyLoss) -> float:
    """The strongest single Gaussian that is admitted, by bisection."""
    low, high = 0.0, 2.0
    for _ in range(40):
        mu = (low + high) / 2
        event = GaussianEvent(((1, 1 / mu),), Fraction(1, 10**9))
        low, high = (mu, high) if ONE.admits(spent, loss_of((event,), ONE.order)) else (low, mu)
    return low


def last_moves(spent: PrivacyLoss) -> list[Profile]:
    moves: list[Profile] = [lambda epsilon: max(0.0, -math.expm1(epsilon))]
    for epsilon0 in ("0.01", "0.03", "0.0821", "0.1", "0.25", "0.5"):
        times = affordable_responses(spent, Fraction(epsilon0))
        if times:
            moves.append(response_profile(float(Fraction(epsilon0)), times))
    mu = affordable_mu(spent)
    if mu > 1e-3:
        moves.append(gaussian_profile(mu))
    return moves


def worst(spent: PrivacyLoss, openings: tuple[str, ...], epsilon: float) -> float:
    """The largest delta that any choice of moves reaches from here."""
    if not openings:
        return max(move(epsilon) for move in last_moves(spent))
    opening = float(Fraction(openings[0]))
    loss = loss_of((PureEvent(Fraction(openings[0])),), ONE.order)
    assert ONE.admits(spent, loss)
    return after_response(
        opening,
        lambda e: worst(spent + loss, openings[1:], e),
        lambda e: worst(spent + loss, openings[1:], e),
    )(epsilon)


@pytest.mark.parametrize(
    "openings",
    [(), ("0.005",), ("0.02",), ("0.1",), ("0.3",), ("0.6",), ("0.02", "0.1"), ("0.2", "0.05")],
)
def test_no_adaptive_adversary_exceeds_delta(openings: tuple[str, ...]) -> None:
    assert worst(PrivacyLoss.zero(), openings, EPSILON) <= DELTA


@pytest.mark.parametrize("openings", [(), ("0.02",), ("0.1",)])
def test_nor_one_that_uses_up_the_floor_deltas_first(openings: tuple[str, ...]) -> None:
    """A key shown with probability delta tells two databases apart for certain."""
    each = ThresholdEvent(Fraction(1, 10**8))
    for times in (12, 37):  # all of delta_floor; all of delta_a, which closes rail B
        spent = loss_of((each,) * times, ONE.order)
        assert ONE.admits(PrivacyLoss.zero(), spent)
        floor = times * 1e-8
        assert floor + (1 - floor) * worst(spent, openings, EPSILON) <= DELTA


# Its arithmetic


@pytest.mark.parametrize(
    ("epsilon", "order"), [("1", "22"), ("2", "25/2"), ("3", "9"), ("4", "7"), ("8", "9/2")]
)
def test_orders_of_the_design(epsilon: str, order: str) -> None:
    found = order_for(Fraction(epsilon), Fraction(1, 10**6))
    assert abs(found - Fraction(order)) <= Fraction(1, 2)
    assert Filter.for_budget(Fraction(epsilon), Fraction(1, 10**6)).order == found


@pytest.mark.parametrize("epsilon", ["0.01", "0.1", "1", "3", "8", "50"])
@pytest.mark.parametrize("delta", ["1e-4", "1e-6", "1e-9", "1e-12"])
def test_the_cap_of_rail_b_means_epsilon_total(epsilon: str, delta: str) -> None:
    rule = Filter.for_budget(Decimal(epsilon), Decimal(delta))
    assert rule.delta_a + rule.delta_b <= rule.delta_total
    delta_conversion = rule.delta_b - rule.delta_floor
    assert rule.cap_rdp > 0
    implied = conversion.epsilon_at(rule.order, rule.cap_rdp, delta_conversion)
    assert rule.epsilon_total - Fraction(1, 10**12) < implied <= rule.epsilon_total


def amount(epsilon: str, delta: str, rdp: str, quoted: str = "0") -> PrivacyLoss:
    return PrivacyLoss(Decimal(epsilon), Decimal(delta), Decimal(rdp), Decimal(quoted))


def test_a_budget_can_be_spent_to_the_last_digit_and_not_beyond() -> None:
    spent = amount("0.9", "2.75e-7", "9")
    assert ONE.admits(spent, amount("0.1", "1e-7", "0"))
    assert not ONE.admits(spent, amount("0.100000000001", "1e-7", "0"))
    assert not ONE.admits(spent, amount("0.1", "1.000000001e-7", "0"))


def test_rail_b_alone_is_enough_and_pays_only_the_floor_of_delta() -> None:
    cap = Decimal(str(math.floor(float(ONE.cap_rdp) * 1e9) / 1e9))
    assert ONE.admits(PrivacyLoss.zero(), PrivacyLoss(Decimal(99), Decimal("1.25e-7"), cap))
    assert not ONE.admits(PrivacyLoss.zero(), PrivacyLoss(Decimal(99), Decimal("1.26e-7"), cap))
    quoted = PrivacyLoss(Decimal(99), Decimal("9e-7"), cap, Decimal("8e-7"))
    assert ONE.admits(PrivacyLoss.zero(), quoted)
    above = Decimal(str(float(ONE.cap_rdp) + 1e-9))
    assert not ONE.admits(PrivacyLoss.zero(), PrivacyLoss(Decimal(99), Decimal(0), above))


def test_a_mix_is_charged_in_full_on_both_rails() -> None:
    assert not ONE.admits(amount("0.9", "0", "0.4"), amount("0.2", "0", "0.3"))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(*[st.integers(0, 40)] * 3), min_size=1, max_size=25))
def test_a_broken_rail_stays_broken(steps: list[tuple[int, int, int]]) -> None:
    losses = [amount(f"{e}e-2", f"{d}e-8", f"{r}e-2") for e, d, r in steps]
    totals = [PrivacyLoss.total(losses[:n]) for n in range(len(losses) + 1)]
    for rail in (ONE.rail_a_holds, ONE.rail_b_holds):
        holds = [rail(total) for total in totals]
        assert all(before or not after for before, after in pairwise(holds))


def test_published_numbers_of_queries() -> None:
    """Laplace 0.1: ten by rail A. Gaussians of the same spread: about nine by rail B."""

    def fit(event: Event) -> int:
        loss, spent, times = loss_of((event,), ONE.order), PrivacyLoss.zero(), 0
        while ONE.admits(spent, loss):
            spent, times = spent + loss, times + 1
        return times

    assert fit(LaplaceEvent(1, 10.0)) == 10
    assert fit(GaussianEvent(((1, 10 * math.sqrt(2)),), Fraction(1, 10**9))) == 9
    assert fit(LaplaceEvent(1, 100.0)) > 400
    assert fit(GaussianEvent(((1, 100 * math.sqrt(2)),), Fraction(1, 10**10))) > 900


def test_without_delta_only_pure_losses_are_admitted() -> None:
    pure = Filter.for_budget(Decimal(1), Decimal(0))
    tenth = loss_of((LaplaceEvent(1, 10.0),), pure.order)
    assert pure.admits(PrivacyLoss.total([tenth] * 9), tenth)
    assert not pure.admits(PrivacyLoss.total([tenth] * 10), tenth)
    for event in (
        GaussianEvent(((1, 1e6),), Fraction(1, 10**12)),
        ThresholdEvent(Fraction(1, 10**12)),
    ):
        assert not pure.admits(PrivacyLoss.zero(), loss_of((event,), pure.order))
    assert Filter.from_json(pure.to_json()) == pure


def test_what_is_left_is_admitted_and_a_little_more_is_not() -> None:
    spent = amount("0.3", "1e-7", "0.2")
    left = ONE.left(spent)
    assert (left.exact_epsilon, left.exact_delta) == (Decimal("0.7"), Decimal("2.75e-7"))
    assert ONE.admits(spent, left)
    assert ONE.admits(spent, PrivacyLoss(Decimal(99), Decimal(0), left.exact_rdp))
    more = PrivacyLoss(left.exact_epsilon + Decimal("1e-12"), Decimal(0), Decimal(99))
    assert not ONE.admits(spent, more)
    assert ONE.floor_delta_left(spent) == Decimal("0.25e-7")
    nothing = ONE.left(amount("5", "1", "9"))
    assert nothing == PrivacyLoss.zero()


# What a ledger keeps


@pytest.mark.parametrize("budget", [("1", "1e-6"), ("3.0", "1e-6"), ("0.05", "1e-12"), ("2", "0")])
def test_a_filter_is_read_back_equal(budget: tuple[str, str]) -> None:
    rule = Filter.for_budget(*map(Decimal, budget))
    assert Filter.from_json(rule.to_json()) == rule


def test_the_text_of_a_filter_never_changes() -> None:
    text = (
        '{"cap_rdp":"289858329951680663/576460752303423488","delta_a":"3/8000000","delta_b":"1/1600000","delta_floor":"1/8000000",'
        '"delta_total":"1/1000000","epsilon_total":"1","order":"22","version":1}'
    )
    assert ONE.to_json() == text


@pytest.mark.parametrize(
    "change",
    [
        {"cap_rdp": "99"},
        {"delta_a": "1/1000"},
        {"delta_floor": "1/1000000"},
        {"order": "1"},
        {"order": "-22"},
        {"order": "22.0"},
        {"epsilon_total": "0"},
        {"epsilon_total": 1},
        {"epsilon_total": "2/2"},
        {"version": 2},
        {"note": "1"},
        {"delta_total": None},
    ],
    ids=str,
)
def test_a_changed_filter_is_refused(change: dict[str, object]) -> None:
    document = json.loads(ONE.to_json()) | change
    with pytest.raises(ValueError, match=r"\w"):
        Filter.from_json(json.dumps(document, sort_keys=True, separators=(",", ":")))


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [
        (Decimal(0), Decimal("1e-6")),
        (Decimal(-1), Decimal("1e-6")),
        (Decimal("NaN"), Decimal("1e-6")),
        (Decimal("Infinity"), Decimal("1e-6")),
        (1.0, Decimal("1e-6")),
        (Decimal(1), Decimal(1)),
        (Decimal(1), Decimal("-1e-6")),
        (Decimal(1), Decimal("NaN")),
        (Decimal(1), 1e-6),
    ],
)
def test_a_budget_that_is_none_is_refused(epsilon: Decimal, delta: Decimal) -> None:
    with pytest.raises(ValueError, match=r"epsilon_total|delta_total"):
        Filter.for_budget(epsilon, delta)
