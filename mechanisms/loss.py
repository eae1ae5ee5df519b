"""What a release costs: exact decimals in, their sums and comparisons out, always rounded up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction

# Epsilon and rdp are kept to 12 decimals. Delta lives near 1e-9, so it is kept to 24.
EPSILON_PLACES = 12
DELTA_PLACES = 24
_EXACT = Context(prec=120, rounding=ROUND_CEILING)
_NOTHING = Fraction(0)
_ZERO = Decimal(0)
_AMOUNTS = ("exact_epsilon", "exact_delta", "exact_rdp", "exact_quoted_delta")


def round_up(value: Fraction, places: int) -> Decimal:
    """Return the smallest decimal with `places` decimals that is not below `value`.

    Raises ValueError for a negative value: a loss cannot give budget back.
    """
    if not value >= 0:
        raise ValueError(f"a privacy loss cannot be negative, got {float(value)!r}")
    units = -((-value.numerator * 10**places) // value.denominator)
    return _EXACT.scaleb(Decimal(units), -places)


def round_down(value: Fraction, places: int) -> Decimal:
    """Return the largest decimal with `places` decimals that is not above `value`."""
    if not value >= 0:
        raise ValueError(f"what is left of a budget cannot be negative, got {float(value)!r}")
    return _EXACT.scaleb(Decimal(value.numerator * 10**places // value.denominator), -places)


@dataclass(frozen=True, slots=True)
class PrivacyLoss:
    """The privacy loss of a release, or of many: epsilon, delta and rdp at the ledger's order.

    `epsilon` and `delta` price rail A (basic composition). Rail B pays `rdp`, the Renyi
    divergence at the one order fixed when the ledger was made, and `floor_delta`: the part of
    delta that no order takes away, such as that of partition selection. The rest of delta,
    `exact_quoted_delta`, is the delta at which a Gaussian's epsilon is quoted; rail B does not
    use that epsilon, so it does not pay for it. Whoever forgets the field pays too much.

    Guarantee: epsilon, delta, rdp and floor_delta are never below the true value they stand for.
    """

    exact_epsilon: Decimal
    exact_delta: Decimal
    exact_rdp: Decimal
    exact_quoted_delta: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        for name in _AMOUNTS:
            value = getattr(self, name)
            if not (isinstance(value, Decimal) and value.is_finite() and value >= _ZERO):
                raise ValueError(f"{name} must be a finite decimal >= 0, got {value!r}")
        if not self.exact_quoted_delta <= self.exact_delta:
            raise ValueError(
                f"quoted delta {self.exact_quoted_delta} is a part of delta and cannot exceed "
                f"{self.exact_delta}"
            )

    @staticmethod
    def of(
        epsilon: Fraction, delta: Fraction, rdp: Fraction, quoted_delta: Fraction = _NOTHING
    ) -> PrivacyLoss:
        """Round exact numbers up into a loss; `quoted_delta`, a discount, is rounded down."""
        return PrivacyLoss(
            round_up(epsilon, EPSILON_PLACES),
            round_up(delta, DELTA_PLACES),
            round_up(rdp, EPSILON_PLACES),
            round_down(quoted_delta, DELTA_PLACES),
        )

    @staticmethod
    def zero() -> PrivacyLoss:
        """Return the loss of saying nothing."""
        return PrivacyLoss(Decimal(0), Decimal(0), Decimal(0))

    @staticmethod
    def total(losses: Iterable[PrivacyLoss]) -> PrivacyLoss:
        """Add losses exactly (basic composition on epsilon and delta, Renyi on rdp)."""
        spent = PrivacyLoss.zero()
        for loss in losses:
            spent = spent + loss
        return spent

    def __add__(self, other: PrivacyLoss) -> PrivacyLoss:
        return PrivacyLoss(
            _EXACT.add(self.exact_epsilon, other.exact_epsilon),
            _EXACT.add(self.exact_delta, other.exact_delta),
            _EXACT.add(self.exact_rdp, other.exact_rdp),
            _EXACT.add(self.exact_quoted_delta, other.exact_quoted_delta),
        )

    @property
    def exact_floor_delta(self) -> Decimal:
        """The part of delta that rail B pays too."""
        return _EXACT.subtract(self.exact_delta, self.exact_quoted_delta)

    @property
    def epsilon(self) -> float:
        """Epsilon as a float, for people and plots."""
        return float(self.exact_epsilon)

    @property
    def delta(self) -> float:
        """Delta as a float, for people and plots."""
        return float(self.exact_delta)

    @property
    def rdp(self) -> float:
        """Renyi divergence at the ledger's order as a float, for people and plots."""
        return float(self.exact_rdp)

    def __str__(self) -> str:
        return f"epsilon {self.epsilon:.6g}, delta {self.delta:.3g}, rdp {self.rdp:.4g}"
