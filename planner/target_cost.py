"""A question planned for a target in, what it will cost for answers of several sizes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mechanisms.pricing import loss_of, revealed
from planner.bind import Bound
from planner.domain import Value
from planner.expression import Column, Expression, columns_of, replaced
from planner.relation import Aggregate
from planner.target import Aim, Target, at_level, is_close, release_of, reservation
from planner.uncertainty import (
    Widths,
    confidence_of,
    derived_columns,
    interval_of,
    noisy_columns,
    noisy_nodes,
    summed_width,
)

SIZES = (10, 100, 1_000, 10_000)


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """What a target costs: exactly `epsilon`, or at most that.

    `costs` gives for each output the epsilon for an answer of each size (an average: for a group
    of so many rows, with the mean in the middle of its bounds), or None where the cap is not
    enough; outputs whose error depends on more than that are left out.
    """

    words: str
    is_exact: bool
    is_met: bool | None
    epsilon: float
    costs: Mapping[str, Mapping[int, float | None]]

    def to_dict(self) -> dict[str, object]:
        """Return it as plain values."""
        costs = {name: {str(n): e for n, e in sizes.items()} for name, sizes in self.costs.items()}
        return {"words": self.words, "is_exact": self.is_exact, "is_met": self.is_met,
                "epsilon": self.epsilon, "costs": costs}

    def lines(self) -> list[str]:
        """Return it for people, in the layout of a plan."""
        limit = "" if self.is_met is not False else ", which does not meet it"
        kind = "epsilon" if self.is_exact else "at most epsilon"
        found = [f"  target         {self.words}",
                 f"    costs        {kind} {self.epsilon:.6g}{limit}"]
        for name, sizes in self.costs.items():
            told = ", ".join(
                f"{size:,}: " + ("more" if cost is None else f"{cost:.3g}")
                for size, cost in sizes.items()
            )
            found.append(f"    {name}: epsilon for answers of {told}")
        return found


def expected_cost(aim: Aim, bound: Bound) -> TargetPlan:
    """Work out what a question will cost, from public facts alone."""
    words = aim.words
    if not aim.levels:
        return TargetPlan(words, True, aim.is_met, aim.plan.loss.epsilon, MappingProxyType({}))
    facts = reservation(aim.plan, aim.levels, frozenset())
    prices = [
        loss_of(revealed(facts.events, level), aim.plan.order).epsilon
        for level in range(aim.levels)
    ]
    relation = bound.rows.relation
    statistics = derived_columns(relation)
    costs: dict[str, Mapping[int, float | None]] = {}
    for name, output in bound.rows.outputs:
        expression = replaced(output, statistics)
        columns = noisy_columns(expression, relation)
        if columns and all(c.source in {r.source for r in bound.releases} for c in columns):
            found = _first_levels(aim, expression, columns)
            if found:
                costs[name] = MappingProxyType({
                    n: None if level is None else prices[level] for n, level in found.items()
                })
    return TargetPlan(words, False, None, prices[-1], MappingProxyType(costs))


def _first_levels(
    aim: Aim, expression: Expression, columns: tuple[Column, ...]
) -> dict[int, int | None]:
    """Return the first level that is good enough for each size; empty where none can be told."""
    found: dict[int, int | None] = dict.fromkeys(SIZES)
    if not isinstance(expression, Column) and not _is_average(expression):
        return {}
    noisy = noisy_nodes(expression, columns)
    for level in range(aim.levels - 1, -1, -1):
        widths = _widths(aim, columns, level)
        for size in SIZES:
            values: dict[Expression, Value | None] = {
                # What is not noisy is the declared center of an average.
                c: _typical(aim, c, expression, size) if c in columns else c.domain.low
                for c in columns_of(expression)
            }
            interval = interval_of(expression, values, widths, noisy)
            middle = None if interval is None else (interval[0] + interval[1]) / 2
            if is_close(middle, interval, aim.target):
                found[size] = level
    return found


def _is_average(expression: Expression) -> bool:
    return getattr(expression, "function", None) == "average"


def _typical(aim: Aim, column: Column, expression: Expression, size: int) -> float:
    """Return a measure's number: the size itself, or 0 for an average's sum from its middle."""
    measure = release_of(aim.plan, column)[1].bounded.measure
    inside = not isinstance(expression, Column)
    return 0.0 if inside and measure.aggregate is Aggregate.SUM else float(size)


def _widths(aim: Aim, columns: tuple[Column, ...], level: int) -> Widths:
    plan, target = at_level(aim.plan, aim.levels, level), aim.target
    confidence = confidence_of(len(columns), target.confidence)
    found = {}
    for column in columns:
        release, measure = release_of(plan, column)
        width = measure.half_width(confidence)
        if _is_total(target) and release.bounded.keys is not None:
            width = summed_width(width, measure.deviation, len(release.bounded.keys), confidence)
        found[column] = (width, width)
    return found


def _is_total(target: Target) -> bool:
    return target.share is None
