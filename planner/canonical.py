"""A release's parts in, one text for every way of asking the same thing out.

Aliases, the order of tables, conditions and groups, derived tables and CTEs, and the spelling of
comparisons do not change the text. Two parts with one text have the same exact answer on every
database; the reverse need not hold (then a question is paid twice, which is safe).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from planner.expression import Call, Column, Expression, Literal
from planner.functions import FUNCTIONS
from planner.relation import (
    Filter,
    How,
    Join,
    Measure,
    Relation,
    Scan,
    walk_relations,
)

Numbering = Mapping[int, int]


def numbering_of(relation: Relation) -> Numbering:
    """Number the scans of a relation by their tables' names, not by their place in the text."""
    scans = [node for node in walk_relations(relation) if isinstance(node, Scan)]
    ordered = sorted(scans, key=lambda scan: (_shape(scan), scan.source))
    return {scan.source: place for place, scan in enumerate(ordered, start=1)}


def _shape(scan: Scan) -> str:
    return f"{scan.table.lower()}|{scan.row_limit}|{scan.one_per_key}"


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
        leaves.append(repr(relation))


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
