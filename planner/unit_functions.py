"""Aggregates and windows within one patient's rows: argument domains in, domains and SQL out.

They run before any noise, on the rows of one unit, so anything total is allowed. Sums are taken
over integers: a sum of doubles depends on the order in which the database adds, so another
patient's presence could move the last bit of this patient's sum, and no bound would hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import floor, isfinite, log2

from planner.domain import Domain, Type, boolean, integer, real
from planner.expression import Expression, Literal
from planner.functions.entry import Unfit, describe, double, need_numbers, number

# Rounding per row: values become integers of at most 2^52, so that each is exact as a double.
EXACT_BITS = 52

Printed = tuple[str, ...]
Arguments = tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class UnitFunction:
    """An aggregate over the rows of one unit.

    `domain` gets the arguments and the largest number of rows a unit can have (None: unknown).
    `sql` gets the printed arguments and conditions.

    Guarantee: the value depends on the unit's rows only, not on the order in which the database
    reads them, and it is never NaN or infinite.
    """

    name: str
    least: int
    most: int
    domain: Callable[[Arguments, int | None], Domain]
    sql: Callable[[Printed, Arguments, str], str]


def _where(conditions: str) -> str:
    return f" FILTER (WHERE {conditions})" if conditions else ""


def exact_sum(printed: str, argument: Expression, suffix: str) -> str:
    """Print a sum over integers, as DOUBLE: exact and independent of order."""
    shift = _shift(argument)
    value = number(printed, argument)
    low, high = _ends(argument)
    clamped = f"LEAST(GREATEST({value}, {double(low)}), {double(high)})"
    whole = (f"CASE WHEN {printed} IS NOT NULL "
             f"THEN TRY_CAST(round({clamped} * {double(shift)}) AS BIGINT) END")
    return f"(CAST(SUM({whole}){suffix} AS DOUBLE) / {double(shift)})"


def _ends(argument: Expression) -> tuple[float, float]:
    ends = argument.domain.interval
    if ends is None:
        raise Unfit("needs known bounds; use CLAMP(x, low, high)")
    return float(ends[0]), float(ends[1])


def _shift(argument: Expression) -> float:
    largest = max(map(abs, _ends(argument)))
    if argument.domain.type in (Type.INTEGER, Type.BOOLEAN) or largest == 0:
        return 1.0
    return 2.0 ** (EXACT_BITS - 1 - max(floor(log2(largest)), -900))


def _count(arguments: Arguments, rows: int | None) -> Domain:
    return integer(0, rows, nullable=False)


def _count_sql(printed: Printed, arguments: Arguments, conditions: str) -> str:
    return f"COUNT({printed[0] if printed else '*'}){_where(conditions)}"


def _sum(arguments: Arguments, rows: int | None) -> Domain:
    need_numbers(arguments)
    low, high = _ends(arguments[0])
    if rows is None:
        raise Unfit("needs a bound on the rows of a patient, which this join does not give")
    whole = arguments[0].domain.type in (Type.INTEGER, Type.BOOLEAN)
    make = integer if whole and rows * max(abs(low), abs(high)) < 2**53 else real
    return make(rows * min(low, 0), rows * max(high, 0), nullable=True)


def _sum_sql(printed: Printed, arguments: Arguments, conditions: str) -> str:
    return exact_sum(printed[0], arguments[0], _where(conditions))


def _mean(arguments: Arguments, rows: int | None) -> Domain:
    need_numbers(arguments)
    low, high = _ends(arguments[0])
    return real(low, high, nullable=True)


def _mean_sql(printed: Printed, arguments: Arguments, conditions: str) -> str:
    total = exact_sum(printed[0], arguments[0], _where(conditions))
    return f"({total} / NULLIF(COUNT({printed[0]}){_where(conditions)}, 0))"


def _spread(arguments: Arguments, rows: int | None) -> Domain:
    need_numbers(arguments)
    low, high = _ends(arguments[0])
    return real(0.0, high - low, nullable=True)


def _spread_sql(ddof: int, root: bool) -> Callable[[Printed, Arguments, str], str]:
    def show(printed: Printed, arguments: Arguments, conditions: str) -> str:
        where = _where(conditions)
        low, high = _ends(arguments[0])
        middle, half = (low + high) / 2, max((high - low) / 2, 1e-300)
        value = number(printed[0], arguments[0])
        clamped = f"LEAST(GREATEST({value}, {double(low)}), {double(high)})"
        unit = f"(({clamped} - {double(middle)}) / {double(half)})"
        unit = f"CASE WHEN {printed[0]} IS NOT NULL THEN {unit} END"
        scale = double(2.0**50)
        sums = [
            f"(CAST(SUM(TRY_CAST(round({value} * {scale}) AS BIGINT)){where} AS DOUBLE) / {scale})"
            for value in (f"({unit})", f"({unit}) * ({unit})")
        ]
        first, second = sums
        rows = f"COUNT({printed[0]}){where}"
        square = f"GREATEST({second} - {first} * {first} / NULLIF({rows}, 0), 0)"
        spread = f"({square} / NULLIF({rows} - {ddof}, 0)) * {double(half * half)}"
        return f"sqrt({spread})" if root else f"({spread})"

    return show


def _variance(arguments: Arguments, rows: int | None) -> Domain:
    need_numbers(arguments)
    low, high = _ends(arguments[0])
    size = (high - low) ** 2
    return real(0.0, size if isfinite(size) else None, nullable=True)


def _extreme(arguments: Arguments, rows: int | None) -> Domain:
    if arguments[0].domain.type in (Type.UNIT, Type.KEY, Type.IMAGE):
        raise Unfit(f"is not defined for {describe(arguments[0])}")
    return arguments[0].domain.with_null()


def _plain(name: str) -> Callable[[Printed, Arguments, str], str]:
    def show(printed: Printed, arguments: Arguments, conditions: str) -> str:
        return f"{name}({', '.join(printed)}){_where(conditions)}"

    return show


def _truth(arguments: Arguments, rows: int | None) -> Domain:
    if arguments[0].domain.type not in (Type.BOOLEAN, Type.NULL):
        raise Unfit(f"needs a condition, got {describe(arguments[0])}")
    return boolean(nullable=True)


def _median(arguments: Arguments, rows: int | None) -> Domain:
    need_numbers(arguments)
    low, high = _ends(arguments[0])
    return real(low, high, nullable=True)


def _quantile(arguments: Arguments, rows: int | None) -> Domain:
    share = arguments[1].value if isinstance(arguments[1], Literal) else None
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise Unfit("needs a constant between 0 and 1 as the share")
    return _median(arguments[:1], rows)


def _median_sql(printed: Printed, arguments: Arguments, conditions: str) -> str:
    share = printed[1] if len(printed) > 1 else "0.5"
    value = number(printed[0], arguments[0])
    return f"quantile_cont({value}, {share}){_where(conditions)}"


def _distinct(arguments: Arguments, rows: int | None) -> Domain:
    return integer(0, rows, nullable=False)


def _distinct_sql(printed: Printed, arguments: Arguments, conditions: str) -> str:
    return f"COUNT(DISTINCT {printed[0]}){_where(conditions)}"


UNIT_FUNCTIONS: Mapping[str, UnitFunction] = {
    f.name: f
    for f in (
        UnitFunction("count", 0, 1, _count, _count_sql),
        UnitFunction("distinct", 1, 1, _distinct, _distinct_sql),
        UnitFunction("sum", 1, 1, _sum, _sum_sql),
        UnitFunction("avg", 1, 1, _mean, _mean_sql),
        UnitFunction("min", 1, 1, _extreme, _plain("MIN")),
        UnitFunction("max", 1, 1, _extreme, _plain("MAX")),
        UnitFunction("bool_and", 1, 1, _truth, _plain("BOOL_AND")),
        UnitFunction("bool_or", 1, 1, _truth, _plain("BOOL_OR")),
        UnitFunction("median", 1, 1, _median, _median_sql),
        UnitFunction("quantile", 2, 2, _quantile, _median_sql),
        UnitFunction("stddev_samp", 1, 1, _spread, _spread_sql(1, root=True)),
        UnitFunction("stddev_pop", 1, 1, _spread, _spread_sql(0, root=True)),
        UnitFunction("var_samp", 1, 1, _variance, _spread_sql(1, root=False)),
        UnitFunction("var_pop", 1, 1, _variance, _spread_sql(0, root=False)),
    )
}


# ---- windows ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WindowFunction:
    """A function over the neighbouring rows of one unit.

    `ordered` ones give different values to rows that are equal in the user's order, so the
    order is completed by the engine (order.order_of). Guarantee: as UnitFunction.
    """

    name: str
    least: int
    most: int
    domain: Callable[[Arguments, int | None], Domain]
    sql: Callable[[Printed, Arguments, str], str]
    ordered: bool = True
    framed: bool = False
    nothing: str = ""  # what stands between the parentheses when there are no arguments

    def breaks_ties(self, frame: str) -> bool:
        """Return whether equal rows must be told apart for this function and frame."""
        return frame.startswith("ROWS") if self.framed and not self.ordered else self.ordered


def _place(arguments: Arguments, rows: int | None) -> Domain:
    return integer(1, rows, nullable=False)


def _over(name: str) -> Callable[[Printed, Arguments, str], str]:
    def show(printed: Printed, arguments: Arguments, over: str) -> str:
        return f"{name}({', '.join(printed)}) OVER {over}"

    return show


def _neighbour(arguments: Arguments, rows: int | None) -> Domain:
    value = arguments[0].domain
    if value.type in (Type.UNIT, Type.KEY, Type.IMAGE):
        raise Unfit(f"is not defined for {describe(arguments[0])}")
    if len(arguments) > 1:
        step = arguments[1].value if isinstance(arguments[1], Literal) else None
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= 10_000:
            raise Unfit("needs a whole constant from 0 to 10000 as the distance")
    if len(arguments) > 2:
        raise Unfit("takes no default; use COALESCE around it")
    return value.with_null()


def _framed_count(printed: Printed, arguments: Arguments, over: str) -> str:
    return f"COUNT({printed[0] if printed else '*'}) OVER {over}"


def _framed_sum(printed: Printed, arguments: Arguments, over: str) -> str:
    return exact_sum(printed[0], arguments[0], f" OVER {over}")


def _framed_mean(printed: Printed, arguments: Arguments, over: str) -> str:
    return (f"({exact_sum(printed[0], arguments[0], f' OVER {over}')} / "
            f"NULLIF(COUNT({printed[0]}) OVER {over}, 0))")


WINDOW_FUNCTIONS: Mapping[str, WindowFunction] = {
    f.name: f
    for f in (
        WindowFunction("row_number", 0, 0, _place, _over("row_number")),
        WindowFunction("rank", 0, 0, _place, _over("rank"), ordered=False),
        WindowFunction("dense_rank", 0, 0, _place, _over("dense_rank"), ordered=False),
        WindowFunction("lag", 1, 2, _neighbour, _over("lag")),
        WindowFunction("lead", 1, 2, _neighbour, _over("lead")),
        WindowFunction("first_value", 1, 1, _neighbour, _over("first_value"), framed=True),
        WindowFunction("last_value", 1, 1, _neighbour, _over("last_value"), framed=True),
        WindowFunction("count", 0, 1, _count, _framed_count, ordered=False, framed=True,
                       nothing="*"),
        WindowFunction("sum", 1, 1, _sum, _framed_sum, ordered=False, framed=True),
        WindowFunction("avg", 1, 1, _mean, _framed_mean, ordered=False, framed=True),
        WindowFunction("min", 1, 1, _extreme, _over("MIN"), ordered=False, framed=True),
        WindowFunction("max", 1, 1, _extreme, _over("MAX"), ordered=False, framed=True),
    )
}

