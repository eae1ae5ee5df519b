"""MEDIAN, quantiles, MIN, MAX and MODE in, one tree or histogram and what is read off it out."""

from __future__ import annotations

from math import isfinite

from sqlglot import exp

from planner.domain import MEMBERS_MAX, Domain, Type
from planner.expression import Expression
from planner.relation import Aggregate, Reading
from planner.scope import claim, refused

VALUES_MAX = 1_000  # values a MODE may choose among

NAMED: dict[type[exp.Expression], float] = {exp.Median: 0.5}
WITH_SHARE = (exp.PercentileCont, exp.PercentileDisc, exp.Quantile, exp.ApproxQuantile)


def reading_of(
    node: exp.Expression,
) -> tuple[exp.Expression, tuple[tuple[Reading, float], ...]] | None:
    """Return what is aggregated and what is read off it, or None for another aggregate."""
    if isinstance(node, exp.Median):
        return node.this, ((Reading.QUANTILE, 0.5),)
    if isinstance(node, exp.Min | exp.Max):
        claim(node, "this")  # MIN(x, 3) would be a list of the three least
        reading = Reading.LEAST if isinstance(node, exp.Min) else Reading.GREATEST
        return node.this, ((reading, 0.0),)
    if isinstance(node, exp.Mode) and node.this is not None:
        claim(node, "this")
        return node.this, ((Reading.MODE, 0.0),)
    if isinstance(node, WITH_SHARE) and "this" in node.args:
        claim(node, "this", "expression", "quantile")
        share = node.args.get("expression") or node.args.get("quantile")
        if isinstance(share, exp.Order):  # QUANTILE_CONT(x, 0.9 ORDER BY x)
            return _ordered(node.this, share, node)
        if share is not None:
            return node.this, ((Reading.QUANTILE, share_of(share, node)),)
    if isinstance(node, exp.WithinGroup):
        return _within_group(node)
    return None


def _ordered(
    value: exp.Expression, order: exp.Order, node: exp.Expression
) -> tuple[exp.Expression, tuple[tuple[Reading, float], ...]]:
    entry = order.expressions[0]
    if len(order.expressions) != 1 or entry.this != value:
        raise refused("types", "a quantile is ordered by what it is taken of",
                      "QUANTILE_CONT(x, 0.9)", node)
    share = share_of(order.this, node)
    return value, ((Reading.QUANTILE, 1 - share if entry.args.get("desc") else share),)


def _within_group(
    node: exp.WithinGroup,
) -> tuple[exp.Expression, tuple[tuple[Reading, float], ...]] | None:
    inner, order = node.this, node.expression
    entries = order.expressions if isinstance(order, exp.Order) else []
    if len(entries) != 1:
        return None
    entry = entries[0]
    if isinstance(inner, exp.Mode):
        return entry.this, ((Reading.MODE, 0.0),)
    if not isinstance(inner, exp.PercentileCont | exp.PercentileDisc):
        return None
    share = share_of(inner.this, node)
    return entry.this, ((Reading.QUANTILE, 1 - share if entry.args.get("desc") else share),)


def share_of(node: exp.Expression, whole: exp.Expression) -> float:
    """Read the constant share of a quantile."""
    try:
        share = float(node.name) if isinstance(node, exp.Literal) else -1.0
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise refused("types", "the share of a quantile is one constant between 0 and 1",
                      "QUANTILE_CONT(x, 0.9)", whole)
    return share


def tree_argument(value: Expression, ends: tuple[float, float] | None, name: str,
                  node: exp.Expression) -> Aggregate:
    """Check that a tree can be laid over the values, and return its aggregate."""
    domain = value.domain
    if domain.type is Type.DATE and domain.low is not None and domain.high is not None:
        return Aggregate.TREE
    if domain.is_number and ends is not None and isfinite(ends[1] - ends[0]):
        return Aggregate.TREE
    if domain.is_number:
        raise refused("unbounded", f"{name} needs known bounds that are not too far apart",
                      f"{name}(CLAMP(x, 0, 1000))", node)
    raise refused("types", f"{name} needs numbers or dates, got a {domain.type.value}",
                  "MODE(x), or COUNT(*) with GROUP BY", node)


def mode_argument(value: Expression, node: exp.Expression) -> Aggregate:
    """Check that the mode is chosen among few known values."""
    members = value.domain.members()
    if members is None or len(members) > VALUES_MAX or len(members) > MEMBERS_MAX:
        raise refused("types", f"MODE needs a column with at most {VALUES_MAX:,} known values",
                      "declare its categories, or GROUP BY x ORDER BY COUNT(*) DESC LIMIT 1", node)
    return Aggregate.HISTOGRAM


def reading_domain(value: Expression, reading: Reading) -> Domain:
    """Return the domain of what is read off."""
    domain = value.domain
    if reading is Reading.QUANTILE and domain.is_number:
        return Domain(Type.REAL, True, domain.low, domain.high)
    return domain.with_null()
