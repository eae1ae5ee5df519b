"""A release's parts in, one text for every way of asking the same thing out.

Aliases, the order of tables, conditions and groups, derived tables and CTEs, and the spelling of
comparisons do not change the text. Two parts with one text have the same exact answer on every
database; the reverse need not hold (then a question is paid twice, which is safe).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

from planner.expression import Call, Column, Expression, Literal
from planner.functions import FUNCTIONS
from planner.relation import (
    Filter,
    Given,
    How,
    Join,
    Mark,
    Measure,
    Relation,
    Release,
    Scan,
    Summary,
    Union,
    UnitAggregate,
    Window,
    walk_relations,
)

Numbering = Mapping[int, int]


def numbering_of(relation: Relation) -> Numbering:
    """Number the instances of a relation by what they are, not by their place in the text."""
    named = [
        node for node in walk_relations(relation)
        if isinstance(
            node, Scan | UnitAggregate | Window | Mark | Union | Release | Summary | Given
        )
    ]
    ordered = sorted(named, key=lambda node: (_shape(node), node.source))
    return {node.source: place for place, node in enumerate(ordered, start=1)}


def _shape(node: Relation) -> str:
    if isinstance(node, Scan):
        return f"{node.table.lower()}|{node.row_limit}|{node.one_per_key}"
    return f"~{type(node).__name__.lower()}"


def expression_text(expression: Expression, numbering: Numbering) -> str:
    """Return the canonical text of an expression."""
    if isinstance(expression, Column):
        return f"c{numbering.get(expression.source, expression.source)}.{expression.name.lower()}"
    if isinstance(expression, Literal):
        kind = expression.domain.type.value if expression.value is None else ""
        return f"{type(expression.value).__name__}{kind}:{expression.value!r}"
    return _call_text(expression, numbering)


# In these, 5 and 5.0 mean the same; in others they do not (7 // 2 and 7 // 2.0 differ).
_COMPARISONS = frozenset({"eq", "lt", "le", "in", "same"})


def _call_text(call: Call, numbering: Numbering) -> str:
    parts = [
        _number_text(argument) if call.function in _COMPARISONS and _is_whole(argument)
        else expression_text(argument, numbering)
        for argument in call.arguments
    ]
    if FUNCTIONS[call.function].commutes:
        parts.sort()
    elif call.function == "in":
        parts[1:] = sorted(parts[1:])
    return f"{call.function}({','.join(parts)})"


def _is_whole(argument: Expression) -> bool:
    value = argument.value if isinstance(argument, Literal) else None
    return isinstance(value, float) and value.is_integer() and abs(value) < 2**53


def _number_text(argument: Expression) -> str:
    value = argument.value if isinstance(argument, Literal) else 0
    return f"int:{int(value)!r}"  # type: ignore[arg-type]


def relation_text(relation: Relation, numbering: Numbering) -> str:
    """Return the canonical text of a protected or public relation below a release."""
    leaves: list[str] = []
    conditions: list[str] = []
    _flatten(relation, numbering, leaves, conditions)
    return f"from[{';'.join(sorted(leaves))}]where[{';'.join(sorted(set(conditions)))}]"


def _flatten(
    relation: Relation, numbering: Numbering, leaves: list[str], conditions: list[str]
) -> None:
    """Inner joins and filters are one set of tables and one set of conditions."""
    if isinstance(relation, Filter):
        conditions.extend(expression_text(c, numbering) for c in relation.conditions)
        _flatten(relation.input, numbering, leaves, conditions)
    elif isinstance(relation, Join) and relation.how is How.INNER:
        conditions.extend(_join_conditions(relation, numbering))
        _flatten(relation.left, numbering, leaves, conditions)
        _flatten(relation.right, numbering, leaves, conditions)
    elif isinstance(relation, Join):
        on = ";".join(sorted(_join_conditions(relation, numbering)))
        left, right = (relation_text(side, numbering) for side in (relation.left, relation.right))
        leaves.append(f"left({left},{right},on[{on}])")
    elif isinstance(relation, Scan):
        leaves.append(f"{numbering[relation.source]}={_shape(relation)}")
    else:
        leaves.append(_derived_text(relation, numbering))


def _derived_text(relation: Relation, numbering: Numbering) -> str:
    """Return the text of a per-patient computation: every field of it, in order."""

    def texts(expressions: Iterable[Expression]) -> str:
        return ",".join(expression_text(e, numbering) for e in expressions)

    if isinstance(relation, UnitAggregate):
        items = ";".join(
            f"{i.function}({texts(i.arguments)}){[a.domain.interval for a in i.arguments]}"
            f"[{';'.join(sorted(expression_text(c, numbering) for c in i.conditions))}]"
            for i in relation.items
        )
        inner = relation_text(relation.input, numbering)
        return f"{numbering[relation.source]}=unit({texts(relation.keys)}|{items}|{inner})"
    if isinstance(relation, Window):
        items = ";".join(
            f"{i.function}({texts(i.arguments)}){[a.domain.interval for a in i.arguments]}"
            f"by({texts(i.partition)})"
            f"order({[(expression_text(e, numbering), d, n) for e, d, n in i.order]}){i.frame}"
            for i in relation.items
        )
        inner = relation_text(relation.input, numbering)
        return f"{numbering[relation.source]}=window({items}|{inner})"
    if isinstance(relation, Mark):
        on = [f"eq({texts(pair)})" for pair in relation.equal]
        on += [expression_text(c, numbering) for c in relation.conditions]
        sides = (relation_text(side, numbering) for side in (relation.input, relation.other))
        return f"{numbering[relation.source]}=mark({relation.tie}|{sorted(on)}|{list(sides)})"
    if isinstance(relation, Union):
        branches = [
            f"{relation_text(b.relation, numbering)}({texts(b.outputs)})"
            for b in relation.branches
        ]
        kinds = [d.type.value for d in relation.domains]
        return f"{numbering[relation.source]}=union({branches}|{kinds})"
    if isinstance(relation, Given):
        # Which answer was given is told apart by its values (engine/releases.py).
        return f"{numbering[relation.source]}={relation!r}"
    return repr(relation)


def _join_conditions(join: Join, numbering: Numbering) -> list[str]:
    found = [expression_text(c, numbering) for c in join.conditions]
    for a, b in join.equal:
        sides = sorted((expression_text(a, numbering), expression_text(b, numbering)))
        found.append(f"eq({','.join(sides)})")
    if join.tie:
        found.append("same unit")
    return found


def measure_text(measure: Measure, numbering: Numbering) -> str:
    """Return the canonical text of a measure, with the bounds its values are clamped to."""
    argument = measure.argument
    inner = "" if argument is None else expression_text(argument, numbering)
    bounds = "" if argument is None else f"{argument.domain.interval}"
    conditions = sorted(expression_text(c, numbering) for c in measure.conditions)
    return f"{measure.aggregate.value}({inner}){bounds}-{measure.center!r}[{';'.join(conditions)}]"


def key_of(*parts: str) -> str:
    """Return the key under which an answer is kept."""
    return sha256("\x1f".join(parts).encode()).hexdigest()
