"""What the engine knows of one function: types and bounds in, a domain and total SQL out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from planner.domain import Domain, Type, Value
from planner.expression import Expression


class Unfit(Exception):  # noqa: N818
    """Arguments a function is not defined for; `bind` turns it into a refusal with a place."""


@dataclass(frozen=True, slots=True)
class Function:
    """One entry of the allow-list.

    `domain` computes the result's domain from the arguments or raises Unfit.
    `sql` prints the call for DuckDB from the printed arguments.
    `python` computes the value of one call, used to enumerate the values a finite expression
    can take; None where it is not offered. With `strict`, NULL in gives NULL out, and `python`
    never sees None.

    Guarantee: the printed SQL is total: on any argument values of the accepted types it yields
    a value or NULL, never an error, and never NaN or an infinity. A wrong `domain` or `python`
    costs accuracy or a group, never privacy: measures are clamped and keys are matched to the
    public key set where sensitivity is decided (bounding.py).
    """

    name: str
    least: int
    most: int
    domain: Callable[[tuple[Expression, ...]], Domain]
    sql: Callable[[tuple[str, ...], tuple[Expression, ...]], str]
    python: Callable[..., Value | None] | None = None
    strict: bool = True
    commutes: bool = False


def number(argument: str, expression: Expression) -> str:
    """Print a numeric argument as DOUBLE: IEEE arithmetic never raises, integers overflow."""
    if expression.domain.type is Type.REAL:
        return argument
    return f"CAST({argument} AS DOUBLE)"


def double(value: float) -> str:
    """Print a constant as DOUBLE: without an exponent it would be DECIMAL."""
    text = repr(float(value))
    text = text if "e" in text else f"{text}e0"
    return text if value >= 0 else f"({text})"


def finite_sql(expression: str) -> str:
    """Turn NaN and infinities into NULL, so that no later clamp or comparison meets one."""
    return f"CASE WHEN isfinite({expression}) THEN {expression} END"


def any_null(arguments: tuple[Expression, ...]) -> bool:
    """Return whether some argument can be NULL."""
    return any(argument.domain.nullable for argument in arguments)


def need_numbers(arguments: tuple[Expression, ...]) -> None:
    """Refuse arguments that are not numbers or truth values."""
    for argument in arguments:
        kind = argument.domain.type
        if not (argument.domain.is_number or kind in (Type.BOOLEAN, Type.NULL)):
            raise Unfit(f"needs numbers, got {describe(argument)}")


def need_text(arguments: tuple[Expression, ...]) -> None:
    """Refuse arguments that are not text."""
    for argument in arguments:
        if argument.domain.type not in (Type.TEXT, Type.NULL):
            raise Unfit(f"needs text, got {describe(argument)}")


def describe(argument: Expression) -> str:
    """Name an argument's type in words."""
    words = {
        Type.UNIT: "the patient key, which may only be joined on, grouped by and counted",
        Type.KEY: "a row key, which may only be joined on and counted",
        Type.IMAGE: "an image",
    }
    return words.get(argument.domain.type, f"a {argument.domain.type.value}")
