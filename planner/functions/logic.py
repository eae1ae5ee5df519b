"""Truth, comparison, NULL and choice: argument domains in, domains and total SQL out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

from planner.domain import MOMENTS, NUMBERS, Domain, Type, Value, boolean, finite, integer, real
from planner.expression import Expression, Literal
from planner.functions.entry import Function, Unfit, any_null, describe, need_numbers, number


def _comparable(arguments: tuple[Expression, ...]) -> None:
    families = {family(argument) for argument in arguments} - {"null"}
    if len(families) > 1:
        names = " with ".join(describe(argument) for argument in arguments)
        raise Unfit(f"cannot compare {names}")
    for argument in arguments:
        if argument.domain.type in (Type.UNIT, Type.KEY, Type.IMAGE):
            raise Unfit(f"cannot compare {describe(argument)}")


def family(argument: Expression) -> str:
    """Return the group of types within which values compare and mix."""
    kind = argument.domain.type
    if kind in NUMBERS:
        return "number"
    if kind in MOMENTS:
        return "moment"
    return kind.value


def _truth(arguments: tuple[Expression, ...]) -> Domain:
    for argument in arguments:
        if argument.domain.type not in (Type.BOOLEAN, Type.NULL):
            raise Unfit(f"needs conditions, got {describe(argument)}")
    return boolean(any_null(arguments))


def _comparison(arguments: tuple[Expression, ...]) -> Domain:
    _comparable(arguments)
    return boolean(any_null(arguments))


def _is_null(arguments: tuple[Expression, ...]) -> Domain:
    return boolean(nullable=False)


def united(arguments: tuple[Expression, ...], nullable: bool) -> Domain:
    """Return the smallest domain that holds every argument's values.

    A missing bound on one side makes the union unbounded: a bound is never guessed.
    """
    _comparable(arguments)
    domains = [a.domain for a in arguments if a.domain.type is not Type.NULL]
    if not domains:
        return Domain(Type.NULL)
    if all(d.type is Type.BOOLEAN for d in domains):
        return boolean(nullable)
    if all(d.values is not None for d in domains) and len({d.type for d in domains}) == 1:
        values = [value for d in domains for value in d.values or ()]
        return finite(domains[0].type, values, nullable)
    kinds = {d.type for d in domains}
    if kinds <= NUMBERS:
        low, high = lowest(d.low for d in domains), highest(d.high for d in domains)
        make = integer if kinds == {Type.INTEGER} else real
        return make(low, high, nullable)
    if kinds <= MOMENTS:
        return _united_moments(domains, nullable)
    return Domain(domains[0].type, nullable)


def lowest(ends: Iterable[Value | None]) -> float | None:
    """Return the lowest of numeric ends, or None where one is unknown."""
    known = [float(e) if isinstance(e, int | float) else None for e in ends]
    return None if None in known else min(e for e in known if e is not None)


def highest(ends: Iterable[Value | None]) -> float | None:
    """Return the highest of numeric ends, or None where one is unknown."""
    known = [float(e) if isinstance(e, int | float) else None for e in ends]
    return None if None in known else max(e for e in known if e is not None)


def _united_moments(domains: list[Domain], nullable: bool) -> Domain:
    kind = Type.DATE if all(d.type is Type.DATE for d in domains) else Type.TIMESTAMP
    lows = [as_moment(d.low, kind) for d in domains if d.low is not None]
    highs = [as_moment(d.high, kind) for d in domains if d.high is not None]
    low = min(lows) if len(lows) == len(domains) else None
    high = max(highs) if len(highs) == len(domains) else None
    return Domain(kind, nullable, low, high)


def as_moment(value: Value | None, kind: Type) -> date | datetime:
    """Return a date as a timestamp where timestamps are meant."""
    if not isinstance(value, date):
        raise Unfit(f"needs a date, got {value!r}")
    if kind is Type.TIMESTAMP and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day)
    return value


def _case(arguments: tuple[Expression, ...]) -> Domain:
    conditions, values = arguments[0:-1:2], (*arguments[1:-1:2], arguments[-1])
    _truth(conditions)
    return united(values, any_null(values))


def _case_sql(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
    values = (*arguments[1:-1:2], arguments[-1])
    mixed = {a.domain.type for a in values} >= NUMBERS
    show = [number(p, a) if mixed else p for p, a in zip(printed, arguments, strict=True)]
    branches = " ".join(
        f"WHEN {printed[i]} THEN {show[i + 1]}" for i in range(0, len(printed) - 1, 2)
    )
    return f"CASE {branches} ELSE {show[-1]} END"


def _case_value(*arguments: Value | None) -> Value | None:
    for i in range(0, len(arguments) - 1, 2):
        if arguments[i] is True:
            return arguments[i + 1]
    return arguments[-1]


def _coalesce(arguments: tuple[Expression, ...]) -> Domain:
    return united(arguments, all(a.domain.nullable for a in arguments))


def _nullif(arguments: tuple[Expression, ...]) -> Domain:
    _comparable(arguments)
    return arguments[0].domain.with_null()


def _and_value(*arguments: Value | None) -> Value | None:
    if any(a is False for a in arguments):
        return False
    return None if any(a is None for a in arguments) else True


def _or_value(*arguments: Value | None) -> Value | None:
    if any(a is True for a in arguments):
        return True
    return None if any(a is None for a in arguments) else False


def _in_sql(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
    return f"({printed[0]} IN ({', '.join(printed[1:])}))"


def _extreme_domain(arguments: tuple[Expression, ...], pick: str) -> Domain:
    """LEAST and GREATEST. With constants beside one expression they clip: NULL stays NULL.

    Between several expressions DuckDB's rule holds: NULLs are skipped.
    """
    clips = clips_one(arguments)
    nullable = any_null(arguments) if clips else all(a.domain.nullable for a in arguments)
    domain = united(arguments, nullable)
    if domain.type not in NUMBERS:
        return Domain(domain.type, nullable, domain.low, domain.high)
    choose = min if pick == "least" else max
    lows = [a.domain.low for a in arguments if a.domain.type is not Type.NULL]
    highs = [a.domain.high for a in arguments if a.domain.type is not Type.NULL]
    if clips:  # one known end is enough to bound that side
        known = [h for h in (highs if pick == "least" else lows) if h is not None]
        end = choose(known) if known else None
        make = integer if domain.type is Type.INTEGER else real
        if pick == "least":
            low = lowest(lows)
            return make(low, end, nullable)  # type: ignore[arg-type]
        high = highest(highs)
        return make(end, high, nullable)  # type: ignore[arg-type]
    return domain


def clips_one(arguments: tuple[Expression, ...]) -> bool:
    """Return whether exactly one argument is not a constant."""
    return sum(not isinstance(a, Literal) for a in arguments) == 1


def _extreme_sql(name: str, printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
    mixed = len({a.domain.type for a in arguments} & NUMBERS) > 1
    show = [number(p, a) if mixed else p for p, a in zip(printed, arguments, strict=True)]
    call = f"{name}({', '.join(show)})"
    if not clips_one(arguments):
        return call
    place = next(i for i, a in enumerate(arguments) if not isinstance(a, Literal))
    return f"CASE WHEN {printed[place]} IS NOT NULL THEN {call} END"


def _clamp(arguments: tuple[Expression, ...]) -> Domain:
    need_numbers(arguments)
    value, low, high = arguments
    if not (isinstance(low, Literal) and isinstance(high, Literal)):
        raise Unfit("CLAMP(x, low, high) needs constants as bounds")
    if low.value is None or high.value is None or not float(low.value) <= float(high.value):  # type: ignore[arg-type]
        raise Unfit(f"CLAMP needs low <= high, got {low.value!r} and {high.value!r}")
    bottom, top = float(low.value), float(high.value)  # type: ignore[arg-type]
    ends = value.domain.interval
    if ends is not None:
        bottom, top = min(max(ends[0], bottom), top), max(min(ends[1], top), bottom)
    kinds = {a.domain.type for a in arguments}
    make = integer if kinds == {Type.INTEGER} else real
    return make(bottom, top, value.domain.nullable)


def _clamp_sql(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
    value, low, high = (number(p, a) for p, a in zip(printed, arguments, strict=True))
    return f"CASE WHEN {printed[0]} IS NOT NULL THEN LEAST(GREATEST({value}, {low}), {high}) END"


def _distinct_sql(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
    return f"({printed[0]} IS NOT DISTINCT FROM {printed[1]})"


def _same(arguments: tuple[Expression, ...]) -> Domain:
    _comparable(arguments)
    return boolean(nullable=False)


def _least(*values: Value | None) -> Value | None:
    kept = [v for v in values if v is not None]
    return min(kept) if kept else None


def _greatest(*values: Value | None) -> Value | None:
    kept = [v for v in values if v is not None]
    return max(kept) if kept else None


LOGIC: tuple[Function, ...] = (
    Function("and", 2, 100_000, _truth, lambda p, a: f"({' AND '.join(p)})", _and_value,
             strict=False, commutes=True),
    Function("or", 2, 100_000, _truth, lambda p, a: f"({' OR '.join(p)})", _or_value,
             strict=False, commutes=True),
    Function("not", 1, 1, _truth, lambda p, a: f"(NOT {p[0]})", lambda x: not x),
    Function("eq", 2, 2, _comparison, lambda p, a: f"({p[0]} = {p[1]})",
             lambda x, y: x == y, commutes=True),
    Function("lt", 2, 2, _comparison, lambda p, a: f"({p[0]} < {p[1]})", lambda x, y: x < y),
    Function("le", 2, 2, _comparison, lambda p, a: f"({p[0]} <= {p[1]})", lambda x, y: x <= y),
    Function("same", 2, 2, _same, _distinct_sql, lambda x, y: x == y, strict=False,
             commutes=True),
    Function("in", 2, 100_000, _comparison, _in_sql,
             lambda x, *rest: x in rest),
    Function("is_null", 1, 1, _is_null, lambda p, a: f"({p[0]} IS NULL)",
             lambda x: x is None, strict=False),
    Function("case", 3, 10_001, _case, _case_sql, _case_value, strict=False),
    Function("coalesce", 1, 1_000, _coalesce,
             lambda p, a: f"COALESCE({', '.join(p)})",
             lambda *xs: next((x for x in xs if x is not None), None), strict=False),
    Function("nullif", 2, 2, _nullif, lambda p, a: f"NULLIF({p[0]}, {p[1]})",
             lambda x, y: None if x == y else x, strict=False),
    Function("least", 2, 100, lambda a: _extreme_domain(a, "least"),
             lambda p, a: _extreme_sql("LEAST", p, a), _least, strict=False),
    Function("greatest", 2, 100, lambda a: _extreme_domain(a, "greatest"),
             lambda p, a: _extreme_sql("GREATEST", p, a), _greatest, strict=False),
    Function("clamp", 3, 3, _clamp, _clamp_sql, lambda x, lo, hi: min(max(x, lo), hi)),
)
