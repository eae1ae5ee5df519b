"""VAR, STDDEV, COVAR, CORR and REGR in, noisy moments and the arithmetic between them out.

All are computed from counts, sums and sums of products of values shifted to the middle of their
bounds, so that noise is as small as the bounds allow; every result is kept in its natural range.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from planner.collector import Collector, bounded_value, count_of, sorted_conditions
from planner.domain import Type
from planner.expression import Expression
from planner.functions import make
from planner.relation import Aggregate, Measure
from planner.scalar import bind_scalar, constant, short
from planner.scope import claim, refused

SPREADS: dict[type[exp.Expression], tuple[int, bool]] = {  # degrees of freedom, root
    exp.Variance: (1, False), exp.VariancePop: (0, False), exp.Stddev: (1, True),
    exp.StddevSamp: (1, True), exp.StddevPop: (0, True),
}
PAIRS = (exp.CovarPop, exp.CovarSamp, exp.Corr, exp.RegrSlope, exp.RegrIntercept, exp.RegrR2)
MOMENTS = (*SPREADS, *PAIRS)
HALF_MAX = 1e100  # fourth powers stay finite


@dataclass(frozen=True, slots=True)
class _Side:
    """One variable: its value, shifted to the middle of its bounds, and half their width."""

    value: Expression
    shifted: Expression
    middle: float
    half: float


def bind_moment(
    node: exp.Expression, conditions: tuple[Expression, ...], collector: Collector
) -> Expression:
    """Bind one statistic to its measures."""
    if type(node) in SPREADS:
        return _spread(node, conditions, collector)
    claim(node, "this", "expression")
    first, second = (
        _side(part, conditions, collector, node) for part in (node.this, node.expression)
    )
    for side in (first, second):
        if side.value.domain.nullable:
            conditions = (*conditions, make("not", make("is_null", side.value)))
    rows = collector.measure(count_of(constant(1), conditions))
    mean_first, mean_second = (
        _mean(side.shifted, side.half, rows, conditions, collector) for side in (first, second)
    )
    product = _product(first, second, rows, conditions, collector)
    covariance = make("sub", product, make("mul", mean_first, mean_second))
    most = first.half * second.half
    covariance = make("clamp", covariance, constant(-most), constant(most))
    if isinstance(node, exp.CovarPop):
        return _from_two_rows(collector, rows, covariance)
    if isinstance(node, exp.CovarSamp):
        return _from_two_rows(collector, rows, _sampled(covariance, rows))
    # REGR(y, x): x is the second argument.
    spread_second = _variance(second, mean_second, rows, conditions, collector)
    slope = make("div", covariance, spread_second)
    if isinstance(node, exp.RegrSlope):
        return _from_two_rows(collector, rows, slope)
    if isinstance(node, exp.RegrIntercept):
        level_first = make("add", mean_first, constant(first.middle))
        level_second = make("add", mean_second, constant(second.middle))
        intercept = make("sub", level_first, make("mul", slope, level_second))
        return _from_two_rows(collector, rows, intercept)
    spread_first = _variance(first, mean_first, rows, conditions, collector)
    root = make("sqrt", make("mul", spread_first, spread_second))
    corr = make("clamp", make("div", covariance, root), constant(-1.0), constant(1.0))
    if isinstance(node, exp.RegrR2):
        return _from_two_rows(collector, rows, make("mul", corr, corr))
    return _from_two_rows(collector, rows, corr)


def _spread(
    node: exp.Expression, conditions: tuple[Expression, ...], collector: Collector
) -> Expression:
    claim(node, "this")
    ddof, root = SPREADS[type(node)]
    side = _side(node.this, conditions, collector, node)
    if side.value.domain.nullable:
        conditions = (*conditions, make("not", make("is_null", side.value)))
    rows = collector.measure(count_of(constant(1), conditions))
    mean = _mean(side.shifted, side.half, rows, conditions, collector)
    variance = _variance(side, mean, rows, conditions, collector)
    if ddof:
        variance = _sampled(variance, rows)
    return _from_two_rows(collector, rows, make("sqrt", variance) if root else variance)


def _side(
    node: exp.Expression, conditions: tuple[Expression, ...], collector: Collector,
    whole: exp.Expression,
) -> _Side:
    if isinstance(node, exp.Distinct):
        raise refused("types", "DISTINCT is not answered here", "leave out DISTINCT", whole)
    value = bind_scalar(node, collector.inner)
    if not (value.domain.is_number or value.domain.type is Type.BOOLEAN):
        raise refused("types", f"{short(whole)} needs numbers", "a numeric column", whole)
    name = whole.sql_name() if isinstance(whole, exp.Func) else "this"
    value, ends = bounded_value(value, conditions, collector, whole, name)
    middle, half = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
    if not half <= HALF_MAX:
        raise refused("unbounded", f"{name} needs bounds whose squares are finite",
                      f"{name}(CLAMP(x, 0, 1000))", whole)
    shifted = make("clamp", make("sub", value, constant(float(middle))), constant(-half),
                   constant(half))
    return _Side(value, shifted, middle, half)


def _mean(
    value: Expression, half: float, rows: Expression, conditions: tuple[Expression, ...],
    collector: Collector,
) -> Expression:
    total = collector.measure(
        Measure(Aggregate.SUM, value, sorted_conditions(conditions))
    )
    return make("clamp", make("div", total, rows), constant(-half), constant(half))


def _variance(
    side: _Side, mean: Expression, rows: Expression, conditions: tuple[Expression, ...],
    collector: Collector,
) -> Expression:
    """E[x^2] - E[x]^2 of the shifted value, within [0, half^2]."""
    square = make("mul", side.shifted, side.shifted)
    most = side.half**2
    square = make("clamp", square, constant(0.0), constant(most))
    total = collector.measure(
        Measure(Aggregate.SUM, square, sorted_conditions(conditions), center=most / 2)
    )
    mean_square = make("add", make("div", total, rows), constant(most / 2))
    variance = make("sub", mean_square, make("mul", mean, mean))
    return make("clamp", variance, constant(0.0), constant(most))


def _product(
    first: _Side, second: _Side, rows: Expression, conditions: tuple[Expression, ...],
    collector: Collector,
) -> Expression:
    most = first.half * second.half
    product = make("clamp", make("mul", first.shifted, second.shifted), constant(-most),
                   constant(most))
    total = collector.measure(
        Measure(Aggregate.SUM, product, sorted_conditions(conditions))
    )
    return make("div", total, rows)


def _sampled(value: Expression, rows: Expression) -> Expression:
    """Turn a population statistic into that of a sample: times n / (n - 1)."""
    return make("mul", value, make("div", rows, make("sub", rows, constant(1))))


def _from_two_rows(collector: Collector, rows: Expression, value: Expression) -> Expression:
    """NULL where hardly anybody is left: a spread of fewer than two rows says nothing."""
    return collector.derive(make("from_two_rows", rows, value))
