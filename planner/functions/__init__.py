"""The allow-list: a function's name and arguments in, a checked node with its domain out.

What is not here does not exist for an analyst. `make` is the only way to build a Call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime

from planner.domain import Type, Value
from planner.expression import Call, Expression, Literal, sort_key
from planner.functions.arithmetic import ARITHMETIC
from planner.functions.calendar import CALENDAR
from planner.functions.entry import Function, Unfit
from planner.functions.learned import LEARNED
from planner.functions.logic import LOGIC, clips_one
from planner.functions.texts import TEXTS

FUNCTIONS: Mapping[str, Function] = {
    entry.name: entry for entry in (*LOGIC, *ARITHMETIC, *TEXTS, *CALENDAR, *LEARNED)
}


def make(name: str, *arguments: Expression) -> Expression:
    """Build a call in canonical form, so that equal questions become equal nodes.

    Raises Unfit where the number or the types of arguments do not fit.
    """
    entry = FUNCTIONS[name]
    if not entry.least <= len(arguments) <= entry.most:
        raise Unfit(f"takes {entry.least} to {entry.most} arguments, got {len(arguments)}")
    if name in ("and", "or"):
        return _connective(name, arguments)
    if name == "not" and (simple := _negated(arguments[0])) is not None:
        return simple
    if name == "in":
        arguments = (arguments[0], *sorted(dict.fromkeys(arguments[1:]), key=sort_key))
        if len(arguments) == 2:
            return make("eq", *arguments)
    if entry.commutes:
        arguments = tuple(sorted(arguments, key=sort_key))
    return Call(name, arguments, entry.domain(arguments))


def _connective(name: str, arguments: tuple[Expression, ...]) -> Expression:
    """Flatten, sort and deduplicate AND and OR: order and repetition never change them."""
    parts: list[Expression] = []
    for argument in arguments:
        nested = isinstance(argument, Call) and argument.function == name
        parts.extend(argument.arguments if nested else (argument,))  # type: ignore[union-attr]
    kept = tuple(sorted(dict.fromkeys(parts), key=sort_key))
    domain = FUNCTIONS[name].domain(kept)
    return kept[0] if len(kept) == 1 else Call(name, kept, domain)


def _negated(inner: Expression) -> Expression | None:
    """Push NOT inward (three-valued logic keeps these laws), or None where it stays."""
    if not isinstance(inner, Call):
        return None
    if inner.function == "not":
        return inner.arguments[0]
    if inner.function == "lt":
        return make("le", inner.arguments[1], inner.arguments[0])
    if inner.function == "le":
        return make("lt", inner.arguments[1], inner.arguments[0])
    if inner.function in ("and", "or"):
        other = "or" if inner.function == "and" else "and"
        return make(other, *(make("not", argument) for argument in inner.arguments))
    return None


def rebuilt(expression: Expression, mapping: Mapping[Expression, Expression]) -> Expression:
    """Return the expression with subtrees replaced and every domain above computed anew."""
    found = mapping.get(expression)
    if found is not None:
        return found
    if not isinstance(expression, Call):
        return expression
    arguments = tuple(rebuilt(argument, mapping) for argument in expression.arguments)
    if arguments == expression.arguments:
        return expression
    return make(expression.function, *arguments)


class NotEnumerable(Exception):  # noqa: N818
    """An expression whose values are not computed ahead of the data."""


def evaluate(expression: Expression, values: Mapping[Expression, Value | None]) -> Value | None:
    """Compute an expression from given values of subtrees, to list a finite set of group keys.

    Raises NotEnumerable where a function offers no such computation.
    """
    if expression in values:
        return values[expression]
    if isinstance(expression, Literal):
        return expression.value
    if not isinstance(expression, Call):
        raise NotEnumerable(expression)
    return _applied(expression, [evaluate(argument, values) for argument in expression.arguments])


Evaluator = Callable[[Sequence[Value | None]], Value | None]


def evaluator(expression: Expression, given: Sequence[Expression]) -> Evaluator:
    """Return `evaluate` of one expression for many rows, each the values of the `given` nodes.

    What an expression says several times is computed once a row.
    """
    places = {node: place for place, node in enumerate(given)}
    start: list[Value | None] = []
    steps: list[tuple[Call, tuple[int, ...]]] = []
    for is_call in (False, True):  # constants stand before what is computed
        for node in _inside_out(expression, frozenset(given)):
            if isinstance(node, Call) is not is_call or node in places:
                continue
            places[node] = len(places)
            if isinstance(node, Call):
                steps.append((node, tuple(places[argument] for argument in node.arguments)))
            elif isinstance(node, Literal):
                start.append(node.value)
            else:
                raise NotEnumerable(node)
    last = places[expression]

    def run(row: Sequence[Value | None]) -> Value | None:
        memory = [*row, *start]
        for node, read in steps:
            memory.append(_applied(node, [memory[place] for place in read]))
        return memory[last]

    return run


def _inside_out(expression: Expression, given: frozenset[Expression]) -> Iterator[Expression]:
    """Yield the distinct nodes of an expression, each after those that it is computed from."""
    seen: set[Expression] = set()
    waiting = [(expression, False)]
    while waiting:
        node, is_open = waiting.pop()
        if is_open:
            yield node
        elif node not in seen:
            seen.add(node)
            waiting.append((node, True))
            if isinstance(node, Call) and node not in given:
                waiting.extend((argument, False) for argument in node.arguments)


def _applied(expression: Call, inner: list[Value | None]) -> Value | None:
    """Apply a call's function to the values of its arguments."""
    entry = FUNCTIONS[expression.function]
    if entry.strict and None in inner:
        return None
    if entry.python is None:
        raise NotEnumerable(entry.name)
    if None in inner and entry.name in ("least", "greatest") and clips_one(expression.arguments):
        return None  # clipping keeps NULL
    try:
        result = entry.python(*inner)
    except (Unfit, ArithmeticError, ValueError, TypeError):
        raise NotEnumerable(entry.name) from None
    if expression.domain.type is Type.INTEGER and isinstance(result, float):
        return int(result) if result.is_integer() else result
    if expression.domain.type is Type.REAL and type(result) is int:
        return float(result)  # 7 // 2 and 7.0 // 2 differ
    if expression.domain.type is Type.TIMESTAMP and type(result) is date:
        return datetime(result.year, result.month, result.day)  # a day beside moments is one
    return result


__all__ = [
    "FUNCTIONS", "Evaluator", "Function", "NotEnumerable", "Unfit", "evaluate", "evaluator", "make",
    "rebuilt",
]
