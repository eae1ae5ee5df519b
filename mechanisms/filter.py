"""The stopping rule: a budget, what is spent and what is asked in; yes or no out.

Queries and their prices may depend on all earlier answers, so the rule must be a privacy
filter. Composition by privacy-loss distributions is none: two steps chosen adversarially reach
1.31 times the delta that every single branch keeps (Regehr et al. 2026; tests/mechanisms).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from mechanisms.bounds import round_down_dyadic
from mechanisms.conversion import divergence_at
from mechanisms.event import read_fraction
from mechanisms.laplace import check_order
from mechanisms.loss import DELTA_PLACES, EPSILON_PLACES, PrivacyLoss, round_down

VERSION = 1
# Shares of delta_total: basic composition, conversion of the Renyi sum, floor deltas beside it.
SHARE_A, SHARE_CONVERSION, SHARE_FLOOR = Fraction(3, 8), Fraction(1, 2), Fraction(1, 8)
# Orders a ledger may be given: steps of 1/2, then wider ones for very small budgets.
ORDERS = tuple(Fraction(n, 2) for n in range(3, 129)) + tuple(
    Fraction(64 * 5**j // 4**j) for j in range(1, 40)
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Two rails under one budget: accept while either still holds.

    Rail A: the epsilons sum to at most epsilon_total and the deltas to at most delta_a.
    Rail B: the Renyi divergences at `order` sum to at most cap_rdp and the floor deltas to at
    most delta_floor; cap_rdp turns into epsilon_total at delta_b - delta_floor.

    Guarantee: everything accepted, chosen adaptively by anybody, is together
    (epsilon_total, delta_total)-DP. Let S_A be the transcripts at whose end A holds, S_B the
    others; which it is, is read off the prices in the transcript. What is spent on B only grows,
    and on A it shrinks only where an accuracy-first release is settled at what it revealed. So
    where A does not hold at the end it did not hold after the last charge; then B did, and does.

    On S_A: let p_j, q_j be the probabilities of the j-th output on two neighbours given the
    outputs before it, with the price (e_j, d_j). There is p'_j <= p_j with p'_j <= exp(e_j) q_j
    that leaves out a mass of at most d_j: min(p_j, exp(e_j) q_j). For a settled release e_j is a
    function of the output itself and d_j = 0 for that part: p_j <= exp(e_j) q_j at every output
    that ends at that level (ex-post privacy, Ligett et al. 2017). The product of all p'_j is at
    most exp(sum e_j) times that of all q_j, hence exp(epsilon_total) times on S_A, where the sum
    at the end is meant: it does not matter what it was before. What is left out on S_A is, term
    by term, at most the expected sum of d_j while that sum is within delta_a; deltas never
    shrink, so on S_A it always is: P(S) <= exp(epsilon_total) Q(S) + delta_a for S in S_A (as the
    basic filter, Rogers, Roth, Ullman and Vadhan 2016, section 3). What is reserved and not
    settled counts in full, which is at least what was revealed.

    On S_B the interaction equals the one that stops before B breaks, and B is never lowered:
    after removing the floor events, of probability at most delta_floor, it has divergence at
    most cap_rdp at the fixed order (Feldman and Zrnic 2021, section 4), hence epsilon_total at
    delta_b - delta_floor (Canonne, Kamath and Steinke 2020, proposition 12). Adding the two gives
    delta_a + delta_b <= delta_total.
    """

    epsilon_total: Fraction
    delta_total: Fraction
    delta_a: Fraction
    delta_b: Fraction
    order: Fraction
    cap_rdp: Fraction
    delta_floor: Fraction

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not (isinstance(getattr(self, name), Fraction) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be a Fraction >= 0, got {getattr(self, name)!r}")
        check_order(self.order)
        if not self.epsilon_total > 0:
            raise ValueError("epsilon_total must be positive")
        if not self.delta_total < 1:
            raise ValueError(f"delta_total must be below 1, got {float(self.delta_total)!r}")
        if not self.delta_a + self.delta_b <= self.delta_total:
            raise ValueError("delta_a + delta_b must not exceed delta_total")
        if not self.delta_floor <= self.delta_b:
            raise ValueError("delta_floor is a part of delta_b and cannot exceed it")
        allowed = _cap(self.order, self.epsilon_total, self.delta_b - self.delta_floor)
        if not self.cap_rdp <= allowed:
            raise ValueError(f"cap_rdp {float(self.cap_rdp)!r} exceeds {float(allowed)!r}")

    @classmethod
    def for_budget(
        cls, epsilon_total: Decimal | Fraction, delta_total: Decimal | Fraction
    ) -> Filter:
        """Return the filter of a new ledger. With delta_total 0 only rail A is open."""
        epsilon, delta = _exact("epsilon_total", epsilon_total), _exact("delta_total", delta_total)
        if not epsilon > 0:
            raise ValueError(f"epsilon_total must be positive, got {epsilon_total!r}")
        if not 0 <= delta < 1:
            raise ValueError(f"delta_total must be at least 0 and below 1, got {delta_total!r}")
        order = order_for(epsilon, delta)
        return cls(
            epsilon_total=epsilon,
            delta_total=delta,
            delta_a=delta * SHARE_A,
            delta_b=delta * (SHARE_CONVERSION + SHARE_FLOOR),
            order=order,
            cap_rdp=_cap(order, epsilon, delta * SHARE_CONVERSION),
            delta_floor=delta * SHARE_FLOOR,
        )

    def admits(self, spent: PrivacyLoss, asked: PrivacyLoss) -> bool:
        """Return whether `asked` may be released after `spent`; see the class."""
        return self.holds(spent + asked)

    def holds(self, total: PrivacyLoss) -> bool:
        """Return whether everything released up to now may cost this total; see the class."""
        return self.rail_a_holds(total) or self.rail_b_holds(total)

    def rail_a_holds(self, total: PrivacyLoss) -> bool:
        """Return whether basic composition covers this total."""
        return (
            _at_most(total.exact_epsilon, self.epsilon_total)
            and _at_most(total.exact_delta, self.delta_a)
        )

    def rail_b_holds(self, total: PrivacyLoss) -> bool:
        """Return whether Renyi composition at the fixed order covers this total.

        A closed rail (cap 0: no delta, or too little for this epsilon) covers nothing.
        """
        return (
            self.cap_rdp > 0
            and _at_most(total.exact_rdp, self.cap_rdp)
            and _at_most(total.exact_floor_delta, self.delta_floor)
        )

    def left(self, spent: PrivacyLoss) -> PrivacyLoss:
        """Return what each rail has left, rounded down, 0 where it is used up.

        Epsilon and delta are those of rail A, rdp that of rail B: a request within either
        (epsilon and delta, or rdp and the floor delta) is accepted. `quoted_delta` is 0 here.
        """
        return PrivacyLoss(
            _left(self.epsilon_total, spent.exact_epsilon, EPSILON_PLACES),
            _left(self.delta_a, spent.exact_delta, DELTA_PLACES),
            _left(self.cap_rdp, spent.exact_rdp, EPSILON_PLACES),
        )

    def floor_delta_left(self, spent: PrivacyLoss) -> Decimal:
        """Return how much floor delta rail B has left, rounded down."""
        return _left(self.delta_floor, spent.exact_floor_delta, DELTA_PLACES)

    def to_json(self) -> str:
        """Return the canonical text that a ledger keeps; every number is an exact fraction."""
        fields = {name: str(getattr(self, name)) for name in self.__slots__}
        return json.dumps({"version": VERSION} | fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Filter:
        """Return the filter of a text made by `to_json`; anything else is refused."""
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("version") != VERSION:
            raise ValueError(f"the version of a privacy filter must be {VERSION}")
        if set(document) != {"version", *cls.__slots__}:
            raise ValueError(f"a privacy filter has the fields {', '.join(cls.__slots__)}")
        made = cls(**{name: read_fraction(document[name]) for name in cls.__slots__})
        if made.to_json() != text:
            raise ValueError("the privacy filter is not in canonical form")
        return made


def order_for(epsilon_total: Fraction, delta_total: Fraction) -> Fraction:
    """Return the public order at which the most Gaussian answers fit: it maximises cap(a)/a.

    Any order is sound; this choice decides only how much rail B is worth. It depends on the
    budget alone and is kept with the ledger for ever.
    """
    if not delta_total > 0:
        return Fraction(2)
    return max(ORDERS, key=lambda a: divergence_at(a, epsilon_total, delta_total) / a)


def _cap(order: Fraction, epsilon: Fraction, delta: Fraction) -> Fraction:
    """Return the largest divergence that means (epsilon, delta)-DP, rounded down; 0 for none."""
    if not delta > 0:
        return Fraction(0)
    return max(Fraction(0), round_down_dyadic(divergence_at(order, epsilon, delta), 60))


def _at_most(value: Decimal, cap: Fraction) -> bool:
    """Compare exactly, without the time that a Fraction takes to be made."""
    numerator, denominator = value.as_integer_ratio()
    return numerator * cap.denominator <= cap.numerator * denominator


def _left(total: Fraction, spent: Decimal, places: int) -> Decimal:
    return round_down(max(Fraction(0), total - Fraction(spent)), places)


def _exact(name: str, value: Decimal | Fraction) -> Fraction:
    if isinstance(value, Decimal) and value.is_finite():
        return Fraction(value)
    if isinstance(value, Fraction):
        return value
    raise ValueError(f"{name} must be a finite Decimal or a Fraction, got {value!r}")
