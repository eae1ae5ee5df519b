"""Text functions: text in, text or whole numbers out, constant patterns only."""

from __future__ import annotations

import re

from planner.domain import Domain, Type, boolean, integer, text
from planner.expression import Call, Expression, Literal
from planner.functions.entry import Function, Unfit, any_null, need_text

PATTERN_LENGTH_MAX = 500


def _text(arguments: tuple[Expression, ...]) -> Domain:
    need_text(arguments)
    return text(any_null(arguments))


def _concat(arguments: tuple[Expression, ...]) -> Domain:
    need_text(arguments)
    return _grown("concat", arguments, nullable=False)


def _joined(arguments: tuple[Expression, ...]) -> Domain:
    need_text(arguments)
    return _grown("joined", arguments, any_null(arguments))


def _length(arguments: tuple[Expression, ...]) -> Domain:
    need_text(arguments)
    values = arguments[0].domain.values
    if values is not None:
        sizes = [len(str(value)) for value in values] or [0]
        return integer(min(sizes), max(sizes), any_null(arguments))
    return integer(0, None, any_null(arguments))


def constant_text(argument: Expression, what: str) -> str:
    """Return the constant text of an argument; a pattern from data could raise or run wild."""
    if not (isinstance(argument, Literal) and isinstance(argument.value, str)):
        raise Unfit(f"needs constant text as {what}")
    if len(argument.value) > PATTERN_LENGTH_MAX:
        raise Unfit(f"accepts at most {PATTERN_LENGTH_MAX} characters of {what}")
    return argument.value


def _like(arguments: tuple[Expression, ...]) -> Domain:
    need_text(arguments)
    if constant_text(arguments[1], "pattern").endswith("\\"):
        raise Unfit("LIKE patterns may not end with a backslash")
    return boolean(any_null(arguments[:1]))


def _matches(arguments: tuple[Expression, ...]) -> Domain:
    need_text(arguments)
    pattern = constant_text(arguments[1], "regular expression")
    # RE2 is linear in time; a plain subset of its syntax surely compiles in it.
    if not re.fullmatch(r"[\w\s^$.|()\[\]*+?,:;=@/'\"-]*", pattern):
        raise Unfit("accepts regular expressions of letters, digits and ^$.|()[]*+? only")
    try:
        re.compile(pattern)
    except re.error as problem:
        raise Unfit(f"cannot read the regular expression: {problem}") from None
    if re.search(r"\(\?|[*+?][*+?]|\[:", pattern):
        raise Unfit("accepts no groups with options and no stacked repetition")
    return boolean(any_null(arguments[:1]))


def _places(arguments: tuple[Expression, ...]) -> Domain:
    need_text(arguments[:1])
    for argument in arguments[1:]:
        whole = isinstance(argument, Literal) and isinstance(argument.value, int)
        if not whole or not -10_000 <= argument.value <= 10_000:  # type: ignore[union-attr,operator]
            raise Unfit("needs whole constants between -10000 and 10000 as places")
    return text(any_null(arguments))


def _position(arguments: tuple[Expression, ...]) -> Domain:
    need_text(arguments)
    constant_text(arguments[1], "searched text")
    return integer(0, None, any_null(arguments))


def _holds(arguments: tuple[Expression, ...]) -> Domain:
    need_text(arguments)
    return boolean(any_null(arguments))


def _replace(arguments: tuple[Expression, ...]) -> Domain:
    need_text(arguments)
    constant_text(arguments[1], "searched text")
    constant_text(arguments[2], "new text")
    return _grown("replace", arguments, any_null(arguments))


def _substr(value: str, start: int, length: int | None = None) -> str | None:
    if start < 1 or (length is not None and length < 0):
        raise ValueError("DuckDB counts such places in its own way: they are not enumerated")
    return value[start - 1 : None if length is None else start - 1 + length]


def _left(value: str, count: int) -> str:
    return _substr(value, 1, count) or ""


def _right(value: str, count: int) -> str:
    if count < 0:
        raise ValueError("counted from the other end: not enumerated")
    return value[-count:] if count else ""


def _plain(value: str) -> str:
    """Return the text if Python and DuckDB surely agree on its upper and lower case."""
    if not value.isascii():
        raise ValueError("case of letters beyond ASCII is not enumerated")
    return value


GROWTH_MAX = 64  # how many times longer than the stored text a text may become
ADDED_MAX = 100_000  # characters that constants may add to it


def _size(expression: Expression) -> tuple[float, float]:
    """Bound an expression's length: this many times a stored text, plus so many characters."""
    if isinstance(expression, Literal):
        return 0.0, float(len(str(expression.value)))
    if not isinstance(expression, Call) or expression.domain.type is not Type.TEXT:
        return (1.0, 0.0) if expression.domain.type is Type.TEXT else (0.0, 64.0)
    sizes = [_size(argument) for argument in expression.arguments]
    if expression.function == "replace":
        old, new = (len(str(getattr(a, "value", ""))) for a in expression.arguments[1:])
        times = max(1.0, new / max(old, 1))
        return sizes[0][0] * times, sizes[0][1] * times
    if expression.function in ("concat", "joined"):
        return sum(s[0] for s in sizes), sum(s[1] for s in sizes)
    return max(s[0] for s in sizes), max(s[1] for s in sizes)


def _grown(name: str, arguments: tuple[Expression, ...], nullable: bool) -> Domain:
    """Refuse a text that could grow so long that the row which holds it exhausts the memory."""
    factor, added = _size(Call(name, arguments, text(nullable)))
    if factor > GROWTH_MAX or added > ADDED_MAX:
        raise Unfit(f"could make a text more than {GROWTH_MAX} times longer")
    return text(nullable)


def _show(name: str, *places: int):  # type: ignore[no-untyped-def]
    def show(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
        return f"{name}({', '.join(printed)})"

    return show


TEXTS: tuple[Function, ...] = (
    Function("lower", 1, 1, _text, _show("lower"), lambda x: _plain(x).lower()),
    Function("upper", 1, 1, _text, _show("upper"), lambda x: _plain(x).upper()),
    Function("trim", 1, 1, _text, _show("trim"), lambda x: x.strip(" ")),
    Function("ltrim", 1, 1, _text, _show("ltrim"), lambda x: x.lstrip(" ")),
    Function("rtrim", 1, 1, _text, _show("rtrim"), lambda x: x.rstrip(" ")),
    Function("length", 1, 1, _length, _show("length"), len),
    Function("substr", 2, 3, _places, _show("substr"), _substr),
    Function("left", 2, 2, _places, _show("left"), _left),
    Function("right", 2, 2, _places, _show("right"), _right),
    Function("replace", 3, 3, _replace, _show("replace"), lambda x, a, b: x.replace(a, b) if a
             else x),
    Function("strpos", 2, 2, _position, _show("strpos"), lambda x, y: x.find(y) + 1),
    Function("starts_with", 2, 2, _holds, _show("starts_with"), lambda x, y: x.startswith(y)),
    Function("contains", 2, 2, _holds, _show("contains"), lambda x, y: y in x),
    Function("concat", 1, 100, _concat,
             lambda p, a: f"concat({', '.join(p)})",
             lambda *xs: "".join(x for x in xs if x is not None), strict=False),
    Function("joined", 2, 2, _joined, lambda p, a: f"({p[0]} || {p[1]})", lambda x, y: x + y),
    Function("like", 2, 2, _like, lambda p, a: f"({p[0]} LIKE {p[1]})"),
    Function("ilike", 2, 2, _like, lambda p, a: f"({p[0]} ILIKE {p[1]})"),
    Function("matches", 2, 2, _matches, lambda p, a: f"regexp_matches({p[0]}, {p[1]})"),
)

KINDS_OF_TEXT = frozenset({Type.TEXT})
