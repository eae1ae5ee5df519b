"""Our own scalar nodes: three frozen kinds, built once, compared by value, never edited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from planner.domain import Domain, Value


@dataclass(frozen=True, slots=True)
class Column:
    """A column of one relation instance. `source` is that instance's number in the plan.

    Because a column is named by its instance and never by an alias, a fact about it cannot
    survive a redefinition of its name. `per_unit` says that all rows of a unit agree on it.
    """

    source: int
    name: str
    domain: Domain
    per_unit: bool = False
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.source, self.name)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Column], tuple[object, ...]]:
        return Column, (self.source, self.name, self.domain, self.per_unit)


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant of the user's text; None is NULL."""

    value: Value | None
    domain: Domain


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the allow-list applied to arguments."""

    function: str
    arguments: tuple[Expression, ...]
    domain: Domain
    # Trees are looked up in dictionaries everywhere: a hash is computed once, from below.
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.function, self.arguments)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Call], tuple[object, ...]]:
        return Call, (self.function, self.arguments, self.domain)  # hashes are a process's own


Expression = Column | Literal | Call


def walk(expression: Expression) -> Iterator[Expression]:
    """Yield the node and all nodes below it, without recursion."""
    waiting = [expression]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, Call):
            waiting.extend(reversed(node.arguments))


def columns_of(expression: Expression) -> tuple[Column, ...]:
    """Return the distinct columns an expression reads, in order of first use."""
    return tuple(dict.fromkeys(n for n in walk(expression) if isinstance(n, Column)))


def is_per_unit(expression: Expression) -> bool:
    """Return whether all rows of one unit agree on the expression's value.

    Guarantee: every function of the allow-list is deterministic, so an expression over columns
    on which a unit's rows agree is one on which they agree as well.
    """
    return all(column.per_unit for column in columns_of(expression))


def sort_key(expression: Expression) -> str:
    """Return a text that orders equal expressions equally, whatever the user wrote first."""
    if isinstance(expression, Column):
        return f"c{expression.source:06d}.{expression.name}"
    if isinstance(expression, Literal):
        return f"l{type(expression.value).__name__}:{expression.value!r}"
    inner = ",".join(sort_key(argument) for argument in expression.arguments)
    return f"f{expression.function}({inner})"


def replaced(
    expression: Expression, mapping: Mapping[Expression, Expression]
) -> Expression:
    """Return the expression with every subtree found in `mapping` replaced, outermost first.

    Domains above a replaced node are kept: use it only where old and new mean the same values.
    """
    found = mapping.get(expression)
    if found is not None:
        return found
    if not isinstance(expression, Call):
        return expression
    arguments = tuple(replaced(argument, mapping) for argument in expression.arguments)
    if arguments == expression.arguments:
        return expression
    return Call(expression.function, arguments, expression.domain)
