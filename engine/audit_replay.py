"""A planned question and two databases in; how far its exact numbers lie apart, out.

Two databases are neighbours when one has one patient more, with all of that patient's rows. The
statements of a plan run on both, and the exact integers that noise would be added to are compared
with the sensitivity that the plan states: no noise, no tolerance. What is released on the way
(answers used further in, pilots that choose bounds) is that of the first database on both sides,
because by then it is public.

For tests and for the steward: the numbers here are exact, and none of them may leave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from engine.execution import open_unpaid
from engine.release import Released, add_noise, choose_keys
from engine.releases import Public, given_values, keys_of
from mechanisms.quantile_tree import node_counts
from mechanisms.randomness import Randomness
from planner.bind import Bound
from planner.bounded_sql import SELECTION, is_spread_out
from planner.price import NoisePlan, Priced
from planner.relation import Aggregate

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Vector = dict[tuple[Any, ...], int]
Given = Mapping[int, tuple[tuple[Any, ...], ...]]


@dataclass(frozen=True, slots=True)
class Run:
    """A plan and the exact integers of its columns on one database.

    `given` are the released answers that each release used as constants, and `pilots` the
    released pilots that chose its bounds: a replay on a neighbour uses the same ones.
    """

    bound: Bound
    plan: NoisePlan
    vectors: tuple[tuple[str, Priced, Vector], ...] = field(repr=False)
    given: tuple[Given, ...]
    pilots: Mapping[str, tuple[float, ...]]


def run_exactly(
    bound: Bound, plan: NoisePlan, database: DuckDBPyConnection, public: Public,
    like: Run | None = None,
) -> Run:
    """Run a plan's statements and keep what noise would be added to.

    With `like`, as a replay on a neighbour of the database of that run.
    """
    reader = open_unpaid(plan, database, insecure_testing=True)
    known: dict[str, Released] = {}
    vectors: list[tuple[str, Priced, Vector]] = []
    used: list[Given] = []
    pilots: dict[str, tuple[float, ...]] = {}
    for n, planned in enumerate(plan.releases):
        given = like.given[n] if like else given_values(bound, plan, known, public)
        used.append(given)
        numbers = reader.run(n, pilots, given)
        release = numbers.release
        plan = replace(plan, releases=(*plan.releases[:n], release, *plan.releases[n + 1 :]))
        columns = [(f"{n}.{i}", i, c) for i, c in enumerate(release.measures)]
        if release.selection is not None:
            columns.append((f"{n}.keys", SELECTION, release.selection))
            known[release.selection.key] = choose_keys(release, numbers, None)
        for label, place, column in columns:
            if column.key in pilots:
                continue  # another release has the same pilot
            values: Mapping[Any, Any] = numbers.columns[place]
            if release.bounded.keys is not None:
                nothing: Any = {} if is_spread_out(column.bounded) else 0
                values = {key: values.get(key, nothing) for key in release.bounded.keys}
            vectors.append((label, column, flat(column, values)))
            if place == SELECTION:
                continue
            noise = Randomness.seeded(n) if planned.bounded.release.source < 0 else None
            known[column.key] = add_noise(column, keys_of(release, known), values, noise)
            if noise is not None:
                pilots[column.key] = (known[column.key].values if like is None
                                      else like.pilots[column.key])
    return Run(bound, plan, tuple(vectors), tuple(used), pilots)


def flat(column: Priced, values: Mapping[tuple[Any, ...], Any]) -> Vector:
    """Return one number per group, or per group and node of a tree or histogram."""
    aggregate = column.bounded.measure.aggregate
    if aggregate is Aggregate.TREE:
        return {
            (*key, node): int(n) for key, bins in values.items()
            for node, n in enumerate(node_counts(bins)) if n
        }
    if column.bounded.is_race:
        return {(*key, j): int(n) for key, clips in values.items() for j, n in clips.items()}
    if aggregate is Aggregate.HISTOGRAM:
        argument = column.bounded.measure.argument
        members = set(argument.domain.members() or ()) if argument is not None else set()
        return {(*key, b): n for key, bins in values.items() for b, n in bins.items()
                if b in members}
    return dict(values)


def public_part(run: Run) -> tuple[object, ...]:
    """Return everything about a run that must be the same on every database."""
    plan = run.plan
    return (
        plan.plan_hash, plan.events, plan.loss, run.bound.rows.outputs,
        tuple(s.sql for r in plan.releases for s in r.statements),
        tuple((c.mechanism, c.scale, c.grid, c.l1, c.l2_squared, c.key) for _, c, _ in run.vectors),
        tuple((r.bounded.keys, r.threshold) for r in plan.releases),
    )


def violations(one: Run, two: Run) -> Iterator[str]:
    """Say where two neighbours differ by more than the plan states."""
    if public_part(one) != public_part(two):
        yield "the plan depends on the data"
    for (label, column, a), (_, _, b) in zip(one.vectors, two.vectors, strict=True):
        l1, l2_squared = distances(a, b)
        if l1 > column.l1:
            yield f"{label}: L1 distance {l1}, stated {column.l1}"
        if l2_squared > column.l2_squared:
            yield f"{label}: squared L2 distance {l2_squared}, stated {column.l2_squared}"


def distances(a: Vector, b: Vector) -> tuple[int, int]:
    """Return the L1 and the squared L2 distance of two vectors; what is missing is zero."""
    apart = [abs(int(a.get(key, 0)) - int(b.get(key, 0))) for key in a.keys() | b.keys()]
    return sum(apart), sum(x * x for x in apart)
