"""Numbers: intervals in, intervals and total SQL in DOUBLE out."""

from __future__ import annotations

import math
from collections.abc import Callable

from planner.domain import MEMBERS_MAX, Domain, Type, Value, finite, integer, real
from planner.expression import Expression, Literal
from planner.functions.entry import Function, Unfit, any_null, finite_sql, need_numbers, number

# Integers up to here are exact as DOUBLE; beyond, a result counts as real.
EXACT_MAX = 2.0**53
# Results beyond this magnitude may overflow to infinity and are checked.
SAFE_MAX = 1e300


def _typed(low: float, high: float, whole: bool, nullable: bool) -> Domain:
    if not (low <= high and max(abs(low), abs(high)) <= SAFE_MAX):
        return real(None, None, True)
    if whole and max(abs(low), abs(high)) < EXACT_MAX:
        return integer(low, high, nullable)
    return real(low, high, nullable)


def _whole(arguments: tuple[Expression, ...]) -> bool:
    return all(a.domain.type in (Type.INTEGER, Type.BOOLEAN) for a in arguments)


def _corners(
    arguments: tuple[Expression, ...], operate: Callable[[float, float], float]
) -> Domain:
    """Bounds of an operation that is monotone in each argument: its value at the corners."""
    need_numbers(arguments)
    left, right = arguments[0].domain.interval, arguments[1].domain.interval
    if left is None or right is None:
        return real(None, None, True)
    values = [operate(x, y) for x in left for y in right]
    return _typed(min(values), max(values), _whole(arguments), any_null(arguments))


def _divide(arguments: tuple[Expression, ...]) -> Domain:
    need_numbers(arguments)
    left, right = arguments[0].domain.interval, arguments[1].domain.interval
    if left is None or right is None or right[0] <= 0 <= right[1]:
        return real(None, None, True)
    values = [x / y for x in left for y in right]
    return _typed(min(values), max(values), False, any_null(arguments))


def _integer_divide(arguments: tuple[Expression, ...]) -> Domain:
    exact = _divide(arguments)
    ends = exact.interval
    if ends is None:
        return exact
    if not _whole(arguments):  # DuckDB's // on DOUBLE does not truncate
        return exact
    return integer(math.trunc(ends[0]), math.trunc(ends[1]), exact.nullable)


def _integer_divide_sql(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
    ratio = _ratio(printed, arguments)
    return f"trunc({ratio})" if _whole(arguments) else finite_sql(ratio)


def _modulo(arguments: tuple[Expression, ...]) -> Domain:
    need_numbers(arguments)
    left, right = arguments[0].domain.interval, arguments[1].domain.interval
    if left is None or right is None:
        return real(None, None, True)
    size = max(abs(right[0]), abs(right[1]))
    if _whole(arguments):
        size = max(size - 1, 0)
    low = max(-size, min(left[0], 0.0))
    high = min(size, max(left[1], 0.0))
    nullable = any_null(arguments) or right[0] <= 0 <= right[1]
    return _typed(low, high, _whole(arguments), nullable)


def _ratio(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
    """Print a quotient that is NULL where the divisor is zero.

    NULLIF would repeat the divisor where nobody sees it, and fractions of fractions would grow
    beyond what the database plans in time; written out, the printer's limit stops them.
    """
    left, right = (number(p, a) for p, a in zip(printed, arguments, strict=True))
    return f"CASE WHEN {right} <> 0 THEN {left} / {right} END"


def _quotient_sql(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
    ratio = _ratio(printed, arguments)
    top, bottom = (a.domain.interval for a in arguments)
    small = top is not None and max(abs(top[0]), abs(top[1])) <= 1e150
    # A whole divisor that is not zero is at least one; others may be as small as they like.
    whole = arguments[1].domain.type is Type.INTEGER
    apart = bottom is not None and (bottom[0] > 1e-150 or bottom[1] < -1e-150)
    return ratio if small and (whole or apart) else finite_sql(ratio)


def _binary(sign: str) -> Callable[[tuple[str, ...], tuple[Expression, ...]], str]:
    def show(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
        left, right = (number(p, a) for p, a in zip(printed, arguments, strict=True))
        result = f"({left} {sign} {right})"
        # Bounds that cannot overflow need no check, which keeps the common query fast.
        ends = [a.domain.interval for a in arguments]
        limit = 1e150 if sign == "*" else SAFE_MAX / 2
        small = all(e is not None and max(abs(e[0]), abs(e[1])) <= limit for e in ends)
        return result if small else finite_sql(result)

    return show


def _modulo_sql(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
    left, right = (number(p, a) for p, a in zip(printed, arguments, strict=True))
    return finite_sql(f"CASE WHEN {right} <> 0 THEN {left} % {right} END")


def _negate(arguments: tuple[Expression, ...]) -> Domain:
    need_numbers(arguments)
    ends = arguments[0].domain.interval
    if ends is None:
        return real(None, None, True)
    return _typed(-ends[1], -ends[0], _whole(arguments), any_null(arguments))


def _monotone(
    whole: bool, operate: Callable[[float], float], low: float = -SAFE_MAX, high: float = SAFE_MAX
) -> Callable[[tuple[Expression, ...]], Domain]:
    """Domain rule of a rising function that is defined on [low, high] and NULL elsewhere."""

    def rule(arguments: tuple[Expression, ...]) -> Domain:
        need_numbers(arguments)
        ends = arguments[0].domain.interval
        if ends is None or ends[1] < low or ends[0] > high:
            return real(None, None, True)
        inside = low <= ends[0] and ends[1] <= high
        bottom, top = operate(max(ends[0], low)), operate(min(ends[1], high))
        return _typed(bottom, top, whole, any_null(arguments) or not inside)

    return rule


def _absolute(arguments: tuple[Expression, ...]) -> Domain:
    need_numbers(arguments)
    ends = arguments[0].domain.interval
    if ends is None:
        return real(None, None, True)
    bottom = 0.0 if ends[0] <= 0 <= ends[1] else min(abs(ends[0]), abs(ends[1]))
    top = max(abs(ends[0]), abs(ends[1]))
    return _typed(bottom, top, _whole(arguments), any_null(arguments))


def _digits(arguments: tuple[Expression, ...]) -> int:
    if len(arguments) == 1:
        return 0
    digits = arguments[1]
    if not (isinstance(digits, Literal) and isinstance(digits.value, int)):
        raise Unfit("ROUND(x, digits) needs a whole constant as digits")
    if not -15 <= digits.value <= 15:
        raise Unfit(f"ROUND accepts -15 to 15 digits, got {digits.value}")
    return digits.value


def _round(arguments: tuple[Expression, ...]) -> Domain:
    digits = _digits(arguments)
    need_numbers(arguments[:1])
    if _stays(arguments):
        return arguments[0].domain
    ends = arguments[0].domain.interval
    if ends is None:
        return real(None, None, True)
    slack = 10.0**-digits
    whole = digits <= 0
    low, high = half_away(ends[0], digits), half_away(ends[1], digits)
    if digits < 0 and (high - low) * 10.0**digits <= MEMBERS_MAX:
        places = range(round(low * 10.0**digits), round(high * 10.0**digits) + 1)
        return finite(Type.INTEGER, (i * 10**-digits for i in places), any_null(arguments))
    if not whole:  # a decimal rounding may differ in the last bit from the database's
        low, high = low - slack, high + slack
    return _typed(low, high, whole, any_null(arguments))


def _stays(arguments: tuple[Expression, ...]) -> bool:
    """Return whether a whole number is rounded to decimals, which changes neither it nor its type.
    """
    return arguments[0].domain.type is Type.INTEGER and _digits(arguments) > 0


def half_away(value: float, digits: int = 0) -> float:
    """Round half away from zero, as DuckDB does for DOUBLE."""
    if type(value) is int and digits >= 0:
        return value
    scale = 10.0**digits
    scaled = value * scale
    if not math.isfinite(scaled):
        return value
    return math.copysign(math.floor(abs(scaled) + 0.5), scaled) / scale


def _round_sql(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
    value = number(printed[0], arguments[0])
    digits = _digits(arguments)
    if _stays(arguments):
        return value
    return f"round({value})" if digits == 0 else finite_sql(f"round({value}, {digits})")


def _power(arguments: tuple[Expression, ...]) -> Domain:
    need_numbers(arguments)
    base, power = arguments[0].domain.interval, arguments[1]
    if base is None or not isinstance(power, Literal) or not isinstance(power.value, int | float):
        return real(None, None, True)
    exponent = float(power.value)
    even = exponent in (2.0, 4.0, 6.0, 8.0)
    if exponent < 0 or (base[0] < 0 and not exponent.is_integer()):
        return real(None, None, True)
    try:
        ends = (base[0] ** exponent, base[1] ** exponent)
    except OverflowError:
        return real(None, None, True)
    if base[0] < 0 and not (even or exponent % 2 == 1 or exponent == 0):
        return real(None, None, True)
    low = 0.0 if even and base[0] <= 0 <= base[1] else min(ends)
    whole = _whole(arguments[:1]) and exponent.is_integer()
    return _typed(low, max(ends), whole, any_null(arguments))


def _simple(name: str, check: bool = True) -> Callable[
    [tuple[str, ...], tuple[Expression, ...]], str
]:
    def show(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
        shown = ", ".join(number(p, a) for p, a in zip(printed, arguments, strict=True))
        call = f"{name}({shown})"
        return finite_sql(call) if check else call

    return show


def _guarded(name: str, guard: str) -> Callable[[tuple[str, ...], tuple[Expression, ...]], str]:
    """A function with a domain of definition: NULL outside it, whatever the version raises."""

    def show(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
        value = number(printed[0], arguments[0])
        return finite_sql(f"{name}(CASE WHEN {value} {guard} THEN {value} END)")

    return show


def _sign(arguments: tuple[Expression, ...]) -> Domain:
    need_numbers(arguments)
    return integer(-1, 1, any_null(arguments))


def _average(arguments: tuple[Expression, ...]) -> Domain:
    low, high = (a.value for a in arguments[3:] if isinstance(a, Literal))
    return real(float(low), float(high), nullable=True)  # type: ignore[arg-type]


def _average_sql(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
    """AVG from a noisy centered sum and a noisy count; NULL where hardly anybody is left."""
    total, rows, middle, low, high = (
        number(p, a) for p, a in zip(printed, arguments, strict=True)
    )
    mean = f"LEAST(GREATEST({middle} + {total} / {rows}, {low}), {high})"
    return f"CASE WHEN {rows} >= 1 THEN {mean} END"


def _truncate(x: float, y: float) -> Value | None:
    if y == 0:
        return None
    if isinstance(x, float) or isinstance(y, float):
        return x / y
    return math.trunc(x / y)


ARITHMETIC: tuple[Function, ...] = (
    Function("add", 2, 2, lambda a: _corners(a, lambda x, y: x + y), _binary("+"),
             lambda x, y: x + y, commutes=True),
    Function("sub", 2, 2, lambda a: _corners(a, lambda x, y: x - y), _binary("-"),
             lambda x, y: x - y),
    Function("mul", 2, 2, lambda a: _corners(a, lambda x, y: x * y), _binary("*"),
             lambda x, y: x * y, commutes=True),
    Function("div", 2, 2, _divide, _quotient_sql,
             lambda x, y: None if y == 0 else x / y),
    Function("intdiv", 2, 2, _integer_divide, _integer_divide_sql, _truncate),
    Function("mod", 2, 2, _modulo, _modulo_sql,
             lambda x, y: None if y == 0 else math.fmod(x, y)),
    Function("neg", 1, 1, _negate, lambda p, a: f"(-{number(p[0], a[0])})", lambda x: -x),
    Function("abs", 1, 1, _absolute, _simple("abs", check=False), abs),
    Function("sign", 1, 1, _sign, lambda p, a: f"sign({number(p[0], a[0])})",
             lambda x: (x > 0) - (x < 0)),
    Function("floor", 1, 1, _monotone(True, math.floor), _simple("floor", check=False),
             math.floor),
    Function("ceil", 1, 1, _monotone(True, math.ceil), _simple("ceil", check=False), math.ceil),
    Function("trunc", 1, 1, _monotone(True, math.trunc), _simple("trunc", check=False),
             math.trunc),
    Function("round", 1, 2, _round, _round_sql, lambda x, d=0: half_away(x, d)),
    Function("sqrt", 1, 1, _monotone(False, math.sqrt, low=0.0), _guarded("sqrt", ">= 0"),
             lambda x: math.sqrt(x) if x >= 0 else None),
    Function("ln", 1, 1, _monotone(False, math.log, low=5e-324), _guarded("ln", "> 0"),
             lambda x: math.log(x) if x > 0 else None),
    Function("log10", 1, 1, _monotone(False, math.log10, low=5e-324), _guarded("log10", "> 0"),
             lambda x: math.log10(x) if x > 0 else None),
    Function("log2", 1, 1, _monotone(False, math.log2, low=5e-324), _guarded("log2", "> 0"),
             lambda x: math.log2(x) if x > 0 else None),
    Function("exp", 1, 1, _monotone(False, math.exp, high=690.0), _simple("exp")),
    Function("power", 2, 2, _power, _simple("pow")),
    Function("average", 5, 5, _average, _average_sql),
    Function("from_two_rows", 2, 2, lambda a: a[1].domain.with_null(),
             lambda p, a: f"CASE WHEN {number(p[0], a[0])} >= 2 THEN {p[1]} END",
             lambda rows, value: value if rows >= 2 else None),
)
