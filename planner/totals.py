"""ROLLUP, CUBE and GROUPING SETS in, totals of one noisy finest level out: all levels agree.

The finest groups are released once; every total is the sum of its noisy parts, so totals are
post-processing, cost nothing, and always add up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, product

from sqlglot import exp

from planner.collector import Collector
from planner.domain import integer
from planner.expression import Column, Expression, is_per_unit, replaced
from planner.measures import bind_measure
from planner.relation import Aggregate, Relation, Release, Summary
from planner.scalar import Scalars, bind_scalar
from planner.scope import claim, refused

SETS_MAX = 64
Keys = tuple[Expression, ...]


def grouping_sets(
    nodes: list[exp.Expression], key: Callable[[exp.Expression], Expression]
) -> list[Keys]:
    """Return the sets of keys a GROUP BY asks for: the product of what its parts ask for."""
    parts = [_sets_of(node, key) for node in nodes]
    found: list[Keys] = []
    for combination in product(*parts):
        merged = tuple(dict.fromkeys(k for keys in combination for k in keys))
        found.append(merged)
        if len(found) > SETS_MAX:
            raise refused("too-large", f"more than {SETS_MAX} sets of groups", "fewer columns",
                          nodes[0])
    return list(dict.fromkeys(found))


def _sets_of(
    node: exp.Expression, key: Callable[[exp.Expression], Expression]
) -> list[Keys]:
    if isinstance(node, exp.Rollup):
        keys = [_tuple_of(part, key) for part in node.expressions]
        return [sum(keys[:n], ()) for n in range(len(keys), -1, -1)]
    if isinstance(node, exp.Cube):
        keys = [_tuple_of(part, key) for part in node.expressions]
        if len(keys) > 6:
            raise refused("too-large", "CUBE takes at most 6 columns", "ROLLUP", node)
        return [
            sum(chosen, ()) for n in range(len(keys), -1, -1) for chosen in combinations(keys, n)
        ]
    if isinstance(node, exp.GroupingSets):
        return [keys for part in node.expressions for keys in (
            _sets_of(part, key) if isinstance(part, exp.Rollup | exp.Cube) else
            [_tuple_of(part, key)]
        )]
    return [(key(node),)]


def _tuple_of(node: exp.Expression, key: Callable[[exp.Expression], Expression]) -> Keys:
    if isinstance(node, exp.Tuple):
        claim(node, "expressions")
        return tuple(key(part) for part in node.expressions)
    return (key(node.this if isinstance(node, exp.Paren) else node),)


@dataclass(frozen=True, slots=True)
class Totals:
    """The finest release of a GROUP BY with several sets, and the totals above it."""

    source: int
    collector: Collector
    keys: Keys
    sets: tuple[Keys, ...]

    def columns(self) -> dict[Expression, Expression]:
        """Return each key's column above the totals; it is NULL where the key was summed up."""
        return {
            key: Column(self.source, f"k{i + 1}", key.domain.with_null())
            for i, key in enumerate(self.keys)
        }

    def bind(self, node: exp.Expression) -> Expression:
        """Bind an aggregate to the columns above the totals."""
        bound = bind_measure(node, self.collector)
        self._check(node)
        below: dict[Expression, Expression] = {
            self._below(place): Column(self.source, f"m{place + 1}", self._below(place).domain)
            for place in range(len(self.collector.measures))
        }
        return replaced(bound, below)

    def _check(self, node: exp.Expression) -> None:
        """Only what adds up over groups can be totalled."""
        for measure in self.collector.measures:
            additive = measure.aggregate in (Aggregate.COUNT, Aggregate.SUM) or (
                measure.aggregate is Aggregate.UNITS and all(map(is_per_unit, self.keys))
            )
            if not additive or self.collector.derived:
                raise refused("grouping-sets", "this aggregate does not add up over groups",
                              "COUNT, SUM and AVG here; others in a GROUP BY of their own", node)

    def _below(self, place: int) -> Column:
        measure = self.collector.measures[place]
        return self.collector.measure(measure)

    def above(self, below: Relation) -> Relation:
        """Return the totals over the finest release."""
        release = Release(self.collector.source, below, self.keys,
                          tuple(self.collector.measures))
        sums = tuple(
            ("SUM", False, release.measure_column(i), ()) for i in range(len(release.measures))
        )
        places = tuple(
            tuple(self.keys.index(key) for key in chosen if key in self.keys)
            for chosen in self.sets
        )
        columns = tuple(release.key_column(i) for i in range(len(self.keys)))
        return Summary(self.source, release, columns, sums, places)

    def grouping(self, node: exp.Grouping, scalars: Scalars) -> Expression:
        """Return the column that is 1 where a key was summed up and 0 where it is a group."""
        claim(node, "expressions")
        inner = [bind_scalar(part, scalars) for part in node.expressions]
        if len(inner) != 1 or inner[0] not in self.keys:
            raise refused("types", "GROUPING takes one key of this GROUP BY", "GROUPING(key)",
                          node)
        place = self.keys.index(inner[0]) + 1
        return Column(self.source, f"g{place}", integer(0, 1, nullable=False))
