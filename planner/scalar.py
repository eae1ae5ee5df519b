"""A scalar of the syntax tree and a scope in, one of our expressions out; unknown nodes refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime

from sqlglot import exp

from planner.domain import MOMENTS, Domain, Type, Value, boolean, finite, integer, real
from planner.expression import Expression, Literal
from planner.functions import Unfit, make
from planner.functions.calendar import DAYS, PARTS
from planner.predictions import NAME as PREDICTION
from planner.predictions import bind_prediction
from planner.scope import Scope, claim, refused, resolve
from planner.spellings import nearest

WHOLE_MAX = 2**53
BUCKETS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Scalars:
    """How to read scalars: the names in view, and what to do with calls that need more.

    `aggregate`, `window` and `subquery` are None where such calls make no sense (ON, arguments
    of aggregates); they are given the node and return what stands for it.
    """

    scope: Scope
    aggregate: Callable[[exp.Expression], Expression] | None = None
    aliases: tuple[tuple[str, Expression], ...] = ()
    window: Callable[[exp.Window, Scalars], Expression] | None = None
    subquery: Callable[[exp.Expression, Scalars], Expression] | None = None
    grouping: Callable[[exp.Grouping, Scalars], Expression] | None = None


AGGREGATES = (exp.AggFunc,)


def bind_scalar(node: exp.Expression, scalars: Scalars) -> Expression:
    """Translate one node, its children first. Raises Refused with rule and place."""
    if isinstance(node, exp.Window | exp.IgnoreNulls | exp.RespectNulls):
        if scalars.window is None or not isinstance(node, exp.Window):
            raise refused("window", f"a window cannot stand here: {short(node)}",
                          "compute it in a subquery in FROM", node)
        return scalars.window(node, scalars)
    if isinstance(node, exp.Exists | exp.Subquery | exp.Select | exp.SetOperation) or (
        isinstance(node, exp.In) and node.args.get("query")
    ):
        if scalars.subquery is None:
            raise refused("subquery", f"a subquery cannot stand here: {short(node)}",
                          "a subquery in FROM, or a JOIN", node)
        return scalars.subquery(node, scalars)
    if isinstance(node, exp.Grouping):
        if scalars.grouping is None:
            raise refused("aggregate-place", "GROUPING stands beside ROLLUP, CUBE and GROUPING "
                          "SETS", "leave it out", node)
        return scalars.grouping(node, scalars)
    if isinstance(node, (exp.Filter, exp.WithinGroup, *AGGREGATES)):
        if scalars.aggregate is None:
            raise refused("aggregate-place", f"an aggregate cannot stand here: {short(node)}",
                          "move it to the SELECT list or HAVING", node)
        return scalars.aggregate(node)
    handler = HANDLERS.get(type(node))
    if handler is None:
        raise refused("unknown-function", f"{label(node)} is not on the list of functions",
                      nearest(node, NAMES), node)
    try:
        return handler(node, scalars)
    except Unfit as problem:
        raise refused("types", f"{label(node)} {problem}", "", node) from None


def bind_condition(node: exp.Expression, scalars: Scalars) -> Expression:
    """Translate a scalar that must be a truth value."""
    condition = bind_scalar(node, scalars)
    if condition.domain.type not in (Type.BOOLEAN, Type.NULL):
        raise refused("types", f"a condition must be true or false, {short(node)} is a "
                      f"{condition.domain.type.value}", f"{short(node)} = ...", node)
    return condition


def conjuncts(node: exp.Expression) -> list[exp.Expression]:
    """Split a chain of ANDs, without recursion, in the order of the text."""
    parts: list[exp.Expression] = []
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if isinstance(current, exp.Paren):
            waiting.append(current.this)
        elif isinstance(current, exp.And):
            waiting.extend((current.expression, current.this))
        else:
            parts.append(current)
    return parts


def label(node: exp.Expression) -> str:
    """Name a node as the user wrote it."""
    if isinstance(node, exp.Anonymous):
        return str(node.this).upper()
    if isinstance(node, exp.Func):
        return node.sql_name()
    return node.key.upper()


def short(node: exp.Expression) -> str:
    """Return the node's text, cut to a line."""
    text = node.sql("duckdb").replace("\n", " ")
    return text if len(text) <= 60 else text[:57] + "..."




# ---- leaves -------------------------------------------------------------------------------


def _column(node: exp.Column, scalars: Scalars) -> Expression:
    if not node.table:
        for name, expression in scalars.aliases:
            if name.lower() == node.name.lower():
                return expression
    return resolve(scalars.scope, node)


def constant(value: Value | None) -> Literal:
    """Return a literal with the exact domain of its one value."""
    if value is None:
        return Literal(None, Domain(Type.NULL))
    if isinstance(value, bool):
        return Literal(value, boolean(nullable=False))
    if isinstance(value, int):
        return Literal(value, integer(value, value, nullable=False))
    if isinstance(value, float):
        return Literal(value, real(value, value, nullable=False))
    if isinstance(value, str):
        return Literal(value, finite(Type.TEXT, (value,), nullable=False))
    kind = Type.TIMESTAMP if isinstance(value, datetime) else Type.DATE
    return Literal(value, Domain(kind, False, value, value))


def _literal(node: exp.Literal, scalars: Scalars) -> Expression:
    claim(node, "this", "is_string")
    if node.is_string:
        return constant(str(node.this))
    text = str(node.this)
    try:
        if text.isdigit() and int(text) <= WHOLE_MAX:
            return constant(int(text))
        value = float(text)
    except ValueError:
        raise refused("syntax", f"cannot read the number {text[:40]}", "", node) from None
    if not -1e300 <= value <= 1e300:
        raise refused("types", f"the number {text[:40]} is too large", "at most 1e300", node)
    return constant(value)


def moment_literal(text: str, kind: Type) -> Literal | None:
    """Read a constant date or timestamp, or None where the text is not one."""
    try:
        if kind is Type.DATE:
            return constant(date.fromisoformat(text.strip()))
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return None if found.tzinfo is not None else constant(found)


# ---- calls --------------------------------------------------------------------------------


def _pair(name: str, swap: bool = False, negate: bool = False) -> Callable[
    [exp.Expression, Scalars], Expression
]:
    def handle(node: exp.Expression, scalars: Scalars) -> Expression:
        claim(node, "this", "expression", "safe", "typed", "negate")
        left = bind_scalar(node.this, scalars)
        right = bind_scalar(node.expression, scalars)
        left, right = _aligned(left, right), _aligned(right, left)
        result = make(name, right, left) if swap else make(name, left, right)
        return make("not", result) if negate != bool(node.args.get("negate")) else result

    return handle


def _aligned(value: Expression, other: Expression) -> Expression:
    """Read constant text as a date where it meets one, as SQL does."""
    text = value.value if isinstance(value, Literal) else None
    if isinstance(text, str) and other.domain.type in MOMENTS:
        found = moment_literal(text, Type.DATE) or moment_literal(text, Type.TIMESTAMP)
        if found is None:
            raise Unfit(f"cannot read {text[:40]!r} as a date; write DATE '2024-01-31'")
        return found
    return value


def _listed(name: str, *parts: str) -> Callable[[exp.Expression, Scalars], Expression]:
    """A call whose arguments are the named parts, a list part giving several."""

    def handle(node: exp.Expression, scalars: Scalars) -> Expression:
        claim(node, *parts, "ignore_nulls", "safe", "coalesce", "decimals_", "big_int")
        found: list[Expression] = []
        for part in parts:
            value = node.args.get(part)
            nodes = value if isinstance(value, list) else [value] if value is not None else []
            found.extend(bind_scalar(child, scalars) for child in nodes)
        return make(name, *found)

    return handle


def _extreme(name: str) -> Callable[[exp.Expression, Scalars], Expression]:
    """LEAST, GREATEST, COALESCE, NULLIF: constant text beside dates is read as a date."""

    def handle(node: exp.Expression, scalars: Scalars) -> Expression:
        claim(node, "this", "expressions", "expression", "ignore_nulls")
        rest = node.args.get("expressions") or [node.expression]
        found = [bind_scalar(child, scalars) for child in (node.this, *rest) if child]
        dated = next((f for f in found if f.domain.type in MOMENTS), None)
        if dated is not None:
            found = [_aligned(f, dated) for f in found]
        return make(name, *found)

    return handle


def _connective(name: str) -> Callable[[exp.Expression, Scalars], Expression]:
    """A chain of ANDs or ORs, flattened without recursion: chains can be very long."""

    def handle(node: exp.Expression, scalars: Scalars) -> Expression:
        parts: list[exp.Expression] = []
        waiting: list[exp.Expression] = [node]
        while waiting:
            current = waiting.pop()
            if type(current) is type(node):
                claim(current, "this", "expression")
                waiting.extend((current.expression, current.this))
            else:
                parts.append(current)
        return make(name, *(bind_scalar(part, scalars) for part in parts))

    return handle


def _paren(node: exp.Paren, scalars: Scalars) -> Expression:
    claim(node, "this")
    return bind_scalar(node.this, scalars)


def _negation(node: exp.Neg, scalars: Scalars) -> Expression:
    claim(node, "this")
    inner = bind_scalar(node.this, scalars)
    if isinstance(inner, Literal) and isinstance(inner.value, int | float):
        return constant(-inner.value)
    return make("neg", inner)


def _between(node: exp.Between, scalars: Scalars) -> Expression:
    claim(node, "this", "low", "high")
    value = bind_scalar(node.this, scalars)
    low, high = (_aligned(bind_scalar(node.args[e], scalars), value) for e in ("low", "high"))
    return make("and", make("le", low, value), make("le", value, high))


def _in(node: exp.In, scalars: Scalars) -> Expression:
    claim(node, "this", "expressions")
    value = bind_scalar(node.this, scalars)
    items = [_aligned(bind_scalar(child, scalars), value) for child in node.expressions]
    if not all(isinstance(item, Literal) for item in items):
        raise refused("types", "IN accepts constants only", "x = a OR x = b", node)
    return make("in", value, *items)


def _is(node: exp.Is, scalars: Scalars) -> Expression:
    claim(node, "this", "expression")
    value = bind_scalar(node.this, scalars)
    target = node.expression
    negated = isinstance(target, exp.Not)
    target = target.this if negated else target
    if isinstance(target, exp.Null):
        result = make("is_null", value)
    elif isinstance(target, exp.Boolean):
        result = make("same", value, constant(bool(target.this)))
    else:
        raise refused("types", f"IS {short(target)} is not known", "IS NULL, IS TRUE", node)
    return make("not", result) if negated else result


def _case(node: exp.Case, scalars: Scalars) -> Expression:
    claim(node, "this", "ifs", "default")
    subject = bind_scalar(node.this, scalars) if node.this else None
    parts: list[Expression] = []
    for branch in node.args["ifs"]:
        claim(branch, "this", "true")
        if subject is None:
            parts.append(bind_condition(branch.this, scalars))
        else:
            other = _aligned(bind_scalar(branch.this, scalars), subject)
            parts.append(make("eq", subject, other))
        parts.append(bind_scalar(branch.args["true"], scalars))
    default = node.args.get("default")
    parts.append(bind_scalar(default, scalars) if default else constant(None))
    return make("case", *parts)


def _if(node: exp.If, scalars: Scalars) -> Expression:
    claim(node, "this", "true", "false")
    other = node.args.get("false")
    return make("case", bind_condition(node.this, scalars),
                bind_scalar(node.args["true"], scalars),
                bind_scalar(other, scalars) if other else constant(None))


TYPES = {
    "BOOLEAN": Type.BOOLEAN, "TINYINT": Type.INTEGER, "SMALLINT": Type.INTEGER,
    "INT": Type.INTEGER, "BIGINT": Type.INTEGER, "FLOAT": Type.REAL, "DOUBLE": Type.REAL,
    "DECIMAL": Type.REAL, "VARCHAR": Type.TEXT, "TEXT": Type.TEXT, "NVARCHAR": Type.TEXT,
    "CHAR": Type.TEXT, "DATE": Type.DATE, "TIMESTAMP": Type.TIMESTAMP,
    "DATETIME": Type.TIMESTAMP, "TIMESTAMPNTZ": Type.TIMESTAMP,
}


def _cast(node: exp.Cast, scalars: Scalars) -> Expression:
    claim(node, "this", "to", "safe")
    kind = TYPES.get(node.to.this.name)
    if kind is None:
        raise refused("types", f"cannot cast to {short(node.to)}",
                      "BOOLEAN, BIGINT, DOUBLE, VARCHAR, DATE or TIMESTAMP", node)
    value = bind_scalar(node.this, scalars)
    text = value.value if isinstance(value, Literal) else None
    if isinstance(text, str) and kind in MOMENTS:
        found = moment_literal(text, kind)
        if found is None:
            raise Unfit(f"cannot read {text[:40]!r} as a {kind.value}")
        return found
    return make("cast", constant(kind.value), value)


def _unit_name(node: exp.Expression | None, known: set[str]) -> str:
    name = node.name.lower() if node is not None else ""
    name = {"dow": "dayofweek", "doy": "dayofyear", "isoweek": "week", "weekofyear": "week",
            "dayofweekiso": "isodow", "weekiso": "week"}.get(name, name.rstrip("s")
                                                            if name.endswith("s") else name)
    if name not in known:
        raise Unfit(f"does not know the part {name!r}; known: {', '.join(sorted(known))}")
    return name


def _truncation(node: exp.Expression, scalars: Scalars) -> Expression:
    claim(node, "this", "unit", "input_type_preserved")
    part = _unit_name(node.args.get("unit"), {"year", "quarter", "month", "week", "day", "hour"})
    return make("date_trunc", constant(part), bind_scalar(node.this, scalars))


def _extraction(node: exp.Extract, scalars: Scalars) -> Expression:
    claim(node, "this", "expression")
    part = _unit_name(node.this, set(PARTS))
    return make("extract", constant(part), bind_scalar(node.expression, scalars))


def _part(name: str) -> Callable[[exp.Expression, Scalars], Expression]:
    def handle(node: exp.Expression, scalars: Scalars) -> Expression:
        claim(node, "this")
        return make("extract", constant(name), bind_scalar(node.this, scalars))

    return handle


def _difference(node: exp.DateDiff, scalars: Scalars) -> Expression:
    claim(node, "this", "expression", "unit", "date_part_boundary")
    part = _unit_name(node.args.get("unit"), set(DAYS))
    end, start = bind_scalar(node.this, scalars), bind_scalar(node.expression, scalars)
    return make("date_diff", constant(part), _aligned(start, end), _aligned(end, start))


def _add(node: exp.Add | exp.Sub, scalars: Scalars) -> Expression:
    claim(node, "this", "expression")
    minus = isinstance(node, exp.Sub)
    left = bind_scalar(node.this, scalars)
    if isinstance(node.expression, exp.Interval):
        return _shifted(left, node.expression, minus)
    right = bind_scalar(node.expression, scalars)
    if left.domain.type in MOMENTS and right.domain.type in MOMENTS and minus:
        if left.domain.type is not Type.DATE or right.domain.type is not Type.DATE:
            raise Unfit("of timestamps gives an interval; use date_diff('day', start, end)")
        return make("date_diff", constant("day"), right, left)
    if left.domain.type in MOMENTS:
        return make("add_days", left, make("neg", right) if minus else right)
    return make("sub" if minus else "add", left, right)


def _shifted(value: Expression, interval: exp.Interval, minus: bool) -> Expression:
    claim(interval, "this", "unit")
    part = _unit_name(interval.args.get("unit"), set(DAYS))
    try:
        count = int(interval.name)
    except ValueError:
        raise Unfit(f"needs a whole constant in INTERVAL, got {interval.name!r}") from None
    return make("add_interval", constant(part), constant(-count if minus else count), value)


def _logarithm(node: exp.Log, scalars: Scalars) -> Expression:
    claim(node, "this", "expression")
    if node.expression is None:
        return make("log10", bind_scalar(node.this, scalars))
    base = bind_scalar(node.this, scalars)
    name = {"10": "log10", "2": "log2"}.get(str(base.value)) if isinstance(base, Literal) else None
    if name is None:
        raise Unfit("knows the bases 2 and 10; use LN(x) / LN(base)")
    return make(name, bind_scalar(node.expression, scalars))


def _concat(node: exp.Concat, scalars: Scalars) -> Expression:
    claim(node, "expressions", "safe", "coalesce")
    parts = [bind_scalar(child, scalars) for child in node.expressions]
    return make("concat", *(_as_text(part) for part in parts))


def _joined(node: exp.DPipe, scalars: Scalars) -> Expression:
    claim(node, "this", "expression", "safe")
    parts = (bind_scalar(node.this, scalars), bind_scalar(node.expression, scalars))
    return make("joined", *(_as_text(part) for part in parts))


def _as_text(value: Expression) -> Expression:
    if value.domain.type in (Type.TEXT, Type.NULL):
        return value
    return make("cast", constant(Type.TEXT.value), value)


NAMED = {"clamp": ("clamp", 3), "iff": ("case", 3), "isodow": ("", 1)}


def _anonymous(node: exp.Anonymous, scalars: Scalars) -> Expression:
    """Functions the parser does not know by name; every other is refused."""
    if str(node.this).lower() == PREDICTION:
        claim(node, "this", "expressions")
        return bind_prediction(node, lambda child: bind_scalar(child, scalars))
    name, count = NAMED.get(str(node.this).lower(), ("", 0))
    if not name:
        raise refused("unknown-function", f"{label(node)} is not on the list of functions",
                      nearest(node, NAMES), node)
    if len(node.expressions) != count:
        raise Unfit(f"takes {count} arguments, got {len(node.expressions)}")
    return make(name, *(bind_scalar(child, scalars) for child in node.expressions))


def _bucket(node: exp.WidthBucket, scalars: Scalars) -> Expression:
    """WIDTH_BUCKET: 0 below, 1 to n from low to high, n + 1 from high on; NULL stays NULL."""
    claim(node, "this", "min_value", "max_value", "num_buckets")
    value, low, high, count = (
        bind_scalar(node.args[name], scalars)
        for name in ("this", "min_value", "max_value", "num_buckets")
    )
    ends = [x.value if isinstance(x, Literal) else None for x in (low, high, count)]
    least, most, n = ends
    if not (isinstance(least, int | float) and isinstance(most, int | float) and least < most
            and type(n) is int and 1 <= n <= BUCKETS_MAX):
        raise Unfit("takes constants: a low end, a higher one, and 1 to "
                    f"{BUCKETS_MAX:,} buckets, as in WIDTH_BUCKET(cost, 0, 20000, 10)")
    place = make("floor", make("div", make("mul", make("sub", value, low), count),
                               constant(float(most - least))))
    return make(
        "case", make("is_null", value), constant(None), make("lt", value, low), constant(0),
        make("le", high, value), constant(n + 1),
        make("clamp", make("add", place, constant(1)), constant(1), count),
    )


def _boolean(node: exp.Boolean, scalars: Scalars) -> Expression:
    return constant(bool(node.this))


def _null(node: exp.Null, scalars: Scalars) -> Expression:
    return constant(None)


def _not(node: exp.Not, scalars: Scalars) -> Expression:
    claim(node, "this")
    return make("not", bind_condition(node.this, scalars))


Handler = Callable[..., Expression]

# Every node the engine understands, one line each. What is not here is refused.
HANDLERS: dict[type[exp.Expression], Handler] = {
    exp.Column: _column,
    exp.Literal: _literal,
    exp.Boolean: _boolean,
    exp.Null: _null,
    exp.Paren: _paren,
    exp.And: _connective("and"),
    exp.Or: _connective("or"),
    exp.Not: _not,
    exp.EQ: _pair("eq"),
    exp.NEQ: _pair("eq", negate=True),
    exp.LT: _pair("lt"),
    exp.LTE: _pair("le"),
    exp.GT: _pair("lt", swap=True),
    exp.GTE: _pair("le", swap=True),
    exp.NullSafeEQ: _pair("same"),
    exp.NullSafeNEQ: _pair("same", negate=True),
    exp.Between: _between,
    exp.In: _in,
    exp.Is: _is,
    exp.Case: _case,
    exp.If: _if,
    exp.Coalesce: _extreme("coalesce"),
    exp.Nullif: _extreme("nullif"),
    exp.Least: _extreme("least"),
    exp.Greatest: _extreme("greatest"),
    exp.Add: _add,
    exp.Sub: _add,
    exp.Mul: _pair("mul"),
    exp.Div: _pair("div"),
    exp.IntDiv: _pair("intdiv"),
    exp.Mod: _pair("mod"),
    exp.Neg: _negation,
    exp.Pow: _pair("power"),
    exp.Abs: _listed("abs", "this"),
    exp.Sign: _listed("sign", "this"),
    exp.Floor: _listed("floor", "this"),
    exp.Ceil: _listed("ceil", "this"),
    exp.Trunc: _listed("trunc", "this"),
    exp.Round: _listed("round", "this", "decimals"),
    exp.Sqrt: _listed("sqrt", "this"),
    exp.Ln: _listed("ln", "this"),
    exp.Log: _logarithm,
    exp.Exp: _listed("exp", "this"),
    exp.Lower: _listed("lower", "this"),
    exp.Upper: _listed("upper", "this"),
    exp.Length: _listed("length", "this"),
    exp.Substring: _listed("substr", "this", "start", "length"),
    exp.Left: _listed("left", "this", "expression"),
    exp.Right: _listed("right", "this", "expression"),
    exp.Replace: _listed("replace", "this", "expression", "replacement"),
    exp.StrPosition: _listed("strpos", "this", "substr"),
    exp.StartsWith: _listed("starts_with", "this", "expression"),
    exp.Contains: _listed("contains", "this", "expression"),
    exp.Concat: _concat,
    exp.DPipe: _joined,
    exp.Like: _pair("like"),
    exp.ILike: _pair("ilike"),
    exp.RegexpLike: _pair("matches"),
    exp.Cast: _cast,
    exp.TryCast: _cast,
    exp.TimestampTrunc: _truncation,
    exp.DateTrunc: _truncation,
    exp.Extract: _extraction,
    exp.Year: _part("year"),
    exp.Month: _part("month"),
    exp.Quarter: _part("quarter"),
    exp.Day: _part("day"),
    exp.DayOfMonth: _part("day"),
    exp.DayOfWeek: _part("dayofweek"),
    exp.DayOfWeekIso: _part("isodow"),
    exp.DayOfYear: _part("dayofyear"),
    exp.Week: _part("week"),
    exp.WeekOfYear: _part("week"),
    exp.Hour: _part("hour"),
    exp.Minute: _part("minute"),
    exp.DateDiff: _difference,
    exp.WidthBucket: _bucket,
    exp.Anonymous: _anonymous,
}


def _trim(node: exp.Trim, scalars: Scalars) -> Expression:
    claim(node, "this", "position")
    name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(node.args.get("position")), "trim")
    return make(name, bind_scalar(node.this, scalars))


HANDLERS[exp.Trim] = _trim
NAMES = frozenset(
    name.lower() for kind in HANDLERS if issubclass(kind, exp.Func) for name in kind.sql_names()
) | frozenset(NAMED)
