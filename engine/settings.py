"""What a call and its text ask for in; how the question is to be answered, exactly, out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from planner.pilot import Bounds
from planner.refusal import Refused

Number = float | int | str | Decimal


@dataclass(frozen=True, slots=True)
class Settings:
    """How one question is to be answered; None means the policy's default."""

    epsilon: Number | None = None
    delta: Number | None = None
    rows: int | None = None
    dialect: str = "duckdb"
    bounds: Bounds = Bounds.DEFAULT
    error: Number | None = None
    confidence: Number | None = None
    error_for: Number | None = None
    split: bool = False


def with_options(settings: Settings, options: tuple[tuple[str, str], ...]) -> Settings:
    """Take options from the text; what the call says wins."""
    given = dict(options)
    rows = settings.rows
    if rows is None and "rows" in given:
        if not given["rows"].isdigit():
            raise Refused("rows", f"rows must be a whole number, got {given['rows'][:40]!r}",
                          "max_rows_contributed=20")
        rows = int(given["rows"])
    epsilon = given.get("epsilon") if settings.epsilon is None else settings.epsilon
    delta = given.get("delta") if settings.delta is None else settings.delta
    error = given.get("error") if settings.error is None else settings.error
    confidence = (
        given.get("confidence") if settings.confidence is None else settings.confidence
    )
    error_for = given.get("error_for") if settings.error_for is None else settings.error_for
    if error is None and not (confidence is None and error_for is None):
        raise Refused("error-target", "confidence and error_for belong to an error", 'error="5%"')
    if error is not None and settings.bounds in (Bounds.AUTO, Bounds.RACE):
        raise Refused("bounds", "an accuracy target uses the declared bounds",
                      f"bounds={settings.bounds.value!r} without an error, or an error without it")
    return replace(settings, epsilon=epsilon, delta=delta, rows=rows, error=error,
                   confidence=confidence, error_for=error_for)


def exactly(name: str, value: Number | None, default: Decimal) -> Fraction:
    """Return a number exactly as it was written: 0.1 is one tenth."""
    if value is None:
        return Fraction(default)
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise Refused(name, f"{name} must be a number, got {value!r}", f"{name}=0.1")
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        raise Refused(name, f"{name} must be a number, got {value!r}", f"{name}=0.1") from None
    if not found.is_finite() or found.adjusted() > 6 or found.adjusted() < -60:
        raise Refused(name, f"{name} must be a usable number, got {value!r}", f"{name}=0.1")
    return Fraction(found)


def wanted(
    settings: Settings, epsilon_default: Decimal, delta_default: Decimal
) -> tuple[Fraction, Fraction]:
    """Return the epsilon and delta of a question as exact fractions. Raises Refused."""
    epsilon = exactly("epsilon", settings.epsilon, epsilon_default)
    delta = exactly("delta", settings.delta, delta_default)
    if not epsilon > 0:
        raise Refused("epsilon", f"epsilon must be above zero, got {settings.epsilon!r}",
                      "epsilon=0.1")
    if not 0 <= delta < 1:
        raise Refused("delta", f"delta must lie in [0, 1), got {settings.delta!r}",
                      "delta=1e-9")
    return epsilon, delta


def is_infinite(epsilon: Number | None) -> bool:
    """Say whether it is the number infinity: an oracle without noise, for insecure testing."""
    return isinstance(epsilon, float) and math.isinf(epsilon) and epsilon > 0


__all__ = ["Number", "Settings", "exactly", "is_infinite", "wanted", "with_options"]
