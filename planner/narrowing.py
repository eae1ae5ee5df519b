"""WHERE conditions in, tighter bounds and complete lists of group keys out: public facts only.

Guarantee: everything here is computed from the question's text, the policy and public tables. A
result that is too narrow loses rows to clamping or a group to the key list; it never weakens the
noise, because sensitivity follows the clamp and the key list, whatever they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import product
from math import ceil, floor, prod

from planner.domain import MEMBERS_MAX, Domain, Type, Value
from planner.expression import Call, Column, Expression, Literal, columns_of
from planner.functions import FUNCTIONS, NotEnumerable, Unfit, evaluate, rebuilt
from planner.relation import Filter, How, Join, Relation, Scan, walk_relations

KEYS_MAX = 100_000  # more public groups than this are selected privately instead
EVALUATIONS_MAX = 20_000
FILTERED_MAX = 5_000  # members of one column that conditions are tried on

Key = tuple[Value | None, ...]


def facts_of(relation: Relation) -> tuple[Expression, ...]:
    """Return conditions that hold on every row of the relation."""
    if isinstance(relation, Filter):
        return (*relation.conditions, *facts_of(relation.input))
    if isinstance(relation, Join):
        inner = relation.how is How.INNER
        below = facts_of(relation.left) + (facts_of(relation.right) if inner else ())
        return below + (relation.conditions if inner else ())
    return ()


def narrowed_interval(
    value: Expression, relation: Relation, conditions: tuple[Expression, ...]
) -> tuple[float, float] | None:
    """Return the closed interval of a number on the rows that count, or None: unbounded."""
    facts = (*facts_of(relation), *conditions)
    mapping = narrowed_columns(columns_of(value), facts)
    try:
        domain = rebuilt(value, mapping).domain
    except Unfit:
        domain = value.domain
    if domain.type is Type.BOOLEAN:
        return (0.0, 1.0)
    domain = _tightened(domain, value, facts)
    ends = domain.interval
    return ends if ends is not None else value.domain.interval


def narrowed_columns(
    columns: tuple[Column, ...], facts: tuple[Expression, ...]
) -> dict[Expression, Expression]:
    """Return each column with the domain that the facts leave it."""
    return {
        column: replace(column, domain=_without_null(_tightened(column.domain, column, facts),
                                                     column, facts))
        for column in columns
    }


def _tightened(domain: Domain, target: Expression, facts: tuple[Expression, ...]) -> Domain:
    for fact in facts:
        if isinstance(fact, Call) and fact.function in ("lt", "le", "eq", "in"):
            domain = _by_fact(domain, target, fact)
    return domain


def _by_fact(domain: Domain, target: Expression, fact: Call) -> Domain:
    left, right = fact.arguments[0], fact.arguments[-1]
    if fact.function == "in" and left == target:
        return _among(domain, [a.value for a in fact.arguments[1:] if isinstance(a, Literal)])
    if fact.function == "eq":
        other = right if left == target else left if right == target else None
        return _among(domain, [other.value]) if isinstance(other, Literal) else domain
    strict = fact.function == "lt"
    if left == target and isinstance(right, Literal):
        return _capped(domain, _inside(right.value, domain, strict, -1), high=True)
    if right == target and isinstance(left, Literal):
        return _capped(domain, _inside(left.value, domain, strict, 1), high=False)
    return domain


def _inside(value: Value | None, domain: Domain, strict: bool, way: int) -> Value | None:
    """Return the last value on the inner side of a bound, exact for whole numbers and days."""
    if isinstance(value, bool) or value is None:
        return None
    if domain.type is Type.INTEGER and isinstance(value, int | float):
        if strict:
            return ceil(value) - 1 if way < 0 else floor(value) + 1
        return floor(value) if way < 0 else ceil(value)
    if domain.type is Type.REAL and isinstance(value, int | float):
        return float(value)
    if domain.type is Type.DATE and isinstance(value, datetime):
        return value.date()
    if domain.type is Type.DATE and isinstance(value, date):
        return value + timedelta(days=way) if strict else value
    if domain.type is Type.TIMESTAMP and isinstance(value, date):
        return value if isinstance(value, datetime) else datetime(value.year, value.month,
                                                                  value.day)
    return None


def _capped(domain: Domain, end: Value | None, high: bool) -> Domain:
    if end is None:
        return domain
    old = domain.high if high else domain.low
    if old is not None and (old <= end if high else old >= end):  # type: ignore[operator]
        return domain
    other = domain.low if high else domain.high
    if other is not None and (end < other if high else end > other):  # type: ignore[operator]
        return domain  # nothing is left: keep the wider, it costs nothing
    values = domain.values
    if values is not None:
        values = tuple(v for v in values if (v <= end if high else v >= end))  # type: ignore[operator]
    if high:
        return replace(domain, values=values, high=end)
    return replace(domain, values=values, low=end)


def _among(domain: Domain, given: list[Value | None]) -> Domain:
    kept = [v for v in given if v is not None and _fits(v, domain)]
    if domain.values is not None:
        kept = [v for v in domain.values if v in kept]
    if not kept or len({isinstance(v, bool) for v in kept}) != 1:
        return domain
    values = tuple(sorted(set(kept)))
    if domain.type in (Type.TEXT, Type.BOOLEAN):
        return replace(domain, values=values)
    return replace(domain, values=values, low=values[0], high=values[-1])


def _fits(value: Value, domain: Domain) -> bool:
    if domain.type is Type.TEXT:
        return isinstance(value, str)
    if domain.type is Type.BOOLEAN:
        return isinstance(value, bool)
    if domain.type is Type.INTEGER:
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if domain.type is Type.REAL:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if domain.type is Type.DATE:
        return isinstance(value, date) and not isinstance(value, datetime)
    return isinstance(value, datetime)


def _without_null(domain: Domain, column: Column, facts: tuple[Expression, ...]) -> Domain:
    """Drop NULL where a fact about this column alone cannot be true on NULL."""
    for fact in facts:
        if not domain.nullable:
            return domain
        if columns_of(fact) == (column,):
            try:
                if evaluate(fact, {column: None}) is not True:
                    domain = domain.with_null(False)
            except NotEnumerable:
                continue
    return domain


def public_keys(keys: tuple[Expression, ...], relation: Relation) -> tuple[Key, ...] | None:
    """List every group the keys can form, NULL included, or None where that is not known.

    The order is that of the values, NULL last, the first key slowest.
    """
    facts = facts_of(relation)
    joint = _by_public_table(keys, relation)
    lists: list[tuple[tuple[int, ...], tuple[Key, ...]]] = []
    total = 1
    for places in joint:
        members = _joint_members(tuple(keys[place] for place in places), relation, facts)
        if members is None:
            return None
        total *= max(len(members), 1)
        if total > KEYS_MAX:
            return None
        lists.append((places, members))
    order = [place for places, _ in lists for place in places]
    back = [order.index(place) for place in range(len(keys))]
    flat = (tuple(v for part in parts for v in part) for parts in product(*(m for _, m in lists)))
    return tuple(tuple(row[place] for place in back) for row in flat)


def _by_public_table(keys: tuple[Expression, ...], relation: Relation) -> list[tuple[int, ...]]:
    """Put keys that read one and the same public table together: their values go together."""
    scans = {
        node.source for node in walk_relations(relation)
        if isinstance(node, Scan) and node.public_rows is not None
    }
    groups: dict[object, list[int]] = {}
    for place, key in enumerate(keys):
        sources = {column.source for column in columns_of(key)}
        alone = len(sources) == 1 and sources <= scans
        groups.setdefault(sources.pop() if alone else f"key {place}", []).append(place)
    return [tuple(places) for places in groups.values()]


def _joint_members(
    keys: tuple[Expression, ...], relation: Relation, facts: tuple[Expression, ...]
) -> tuple[Key, ...] | None:
    if len(keys) == 1:
        members = _members_of(keys[0], facts)
        return None if members is None else tuple((value,) for value in members)
    columns = tuple(dict.fromkeys(c for key in keys for c in columns_of(key)))
    scan = next(
        node for node in walk_relations(relation)
        if isinstance(node, Scan) and node.source == columns[0].source
    )
    if scan.public_rows is None:
        return None
    places = [scan.public_rows.columns.index(column.name) for column in columns]
    rows = {tuple(row[place] for place in places) for row in scan.public_rows.rows}
    if any(key.domain.nullable for key in keys):
        rows.add(tuple(None for _ in places))  # the optional side of a left join
    about = [fact for fact in facts if set(columns_of(fact)) <= set(columns)]
    bindings: list[dict[Expression, Value | None]] = [
        dict(zip(columns, row, strict=True)) for row in rows
    ]
    try:
        found = {
            tuple(evaluate(key, values) for key in keys) for values in bindings
            if all(evaluate(fact, values) is True for fact in about)
        }
    except NotEnumerable:
        return None
    return tuple(sorted(found, key=lambda key: [(v is None, v if v is not None else 0)
                                                for v in key]))


def key_count(key: Expression, relation: Relation) -> int | None:
    """Return how many values one key can take, NULL included, or None."""
    members = _members_of(key, facts_of(relation))
    return None if members is None else len(members)


@lru_cache(maxsize=512)
def _members_of(
    key: Expression, facts: tuple[Expression, ...]
) -> tuple[Value | None, ...] | None:
    mapping = narrowed_columns(columns_of(key), facts)
    try:
        narrowed = rebuilt(key, mapping)
    except Unfit:
        narrowed = key
    atoms: dict[Expression, tuple[Value | None, ...]] = {}
    if not _gather(narrowed, facts, mapping, atoms):
        return None
    size = 1
    for members in atoms.values():
        size *= len(members)
    if size > (MEMBERS_MAX if len(atoms) == 1 and narrowed in atoms else EVALUATIONS_MAX):
        return None
    if narrowed in atoms:
        found = set(atoms[narrowed])
    else:
        try:
            found = {
                evaluate(narrowed, dict(zip(atoms, values, strict=True)))
                for values in product(*atoms.values())
            }
        except NotEnumerable:
            return None
    if not narrowed.domain.nullable:
        found.discard(None)
    try:
        some = sorted(v for v in found if v is not None)
    except TypeError:  # days beside instants have no common order
        return None
    return (*some, None) if None in found else tuple(some)


def _gather(
    node: Expression, facts: tuple[Expression, ...], mapping: Mapping[Expression, Expression],
    atoms: dict[Expression, tuple[Value | None, ...]],
) -> bool:
    """Find the finite parts an expression is computed from; False where there are none."""
    if isinstance(node, Literal):
        return True
    members = _tightened(node.domain, _original(node, mapping), facts).members()
    if isinstance(node, Call) and FUNCTIONS[node.function].python is not None:
        found: dict[Expression, tuple[Value | None, ...]] = {}
        if all(_gather(argument, facts, mapping, found) for argument in node.arguments):
            size = prod(len(values) for values in found.values())
            # Years of a long range of days are fewer than its days: take them as they are.
            if members is None or size <= max(len(members), FILTERED_MAX):
                atoms.update(found)
                return True
    if members is None:
        return False
    kept: tuple[Value | None, ...] = members
    if node.domain.nullable:
        kept = (*kept, None)
    if isinstance(node, Column) and len(kept) <= FILTERED_MAX:
        kept = _surviving(node, kept, facts, mapping)
    atoms[node] = kept
    return True


def _original(node: Expression, mapping: Mapping[Expression, Expression]) -> Expression:
    """Return the node as the facts know it, before its columns were narrowed."""
    back = {new: old for old, new in mapping.items()}
    try:
        return rebuilt(node, back)
    except Unfit:
        return node


def _surviving(
    column: Column, members: tuple[Value | None, ...], facts: tuple[Expression, ...],
    mapping: Mapping[Expression, Expression],
) -> tuple[Value | None, ...]:
    """Keep the members on which every fact about this column alone holds."""
    original = next((old for old, new in mapping.items() if new == column), column)
    about = [f for f in facts if columns_of(f) == (original,)]
    kept = []
    for value in members:
        try:
            if all(evaluate(fact, {original: value}) is True for fact in about):
                kept.append(value)
        except NotEnumerable:
            return members
    return tuple(kept) or members
