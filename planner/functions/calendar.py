"""Dates, timestamps and casts: bounded moments in, bounded moments and whole numbers out."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from math import ceil, floor

from planner.domain import MEMBERS_MAX, MOMENTS, Domain, Type, Value, boolean, integer, real, text
from planner.expression import Expression, Literal
from planner.functions.entry import Function, Unfit, any_null, describe
from planner.functions.logic import as_moment

# Part of a date: the closed interval its number lies in (None: by the argument's own bounds).
PARTS: dict[str, tuple[int, int] | None] = {
    "year": None, "isoyear": None, "quarter": (1, 4), "month": (1, 12), "week": (1, 53),
    "day": (1, 31), "dayofweek": (0, 6), "isodow": (1, 7), "dayofyear": (1, 366), "hour": (0, 23),
    "minute": (0, 59), "second": (0, 59),
}
DAYS = {"day": 1.0, "week": 7.0, "month": 28.0, "quarter": 90.0, "year": 365.0,
        "hour": 1 / 24, "minute": 1 / 1440, "second": 1 / 86400}
MONTHS = {"month": 1, "quarter": 3, "year": 12}
SHIFT_MAX = 100_000
# DuckDB raises where a moment leaves its range, so every moment stays within these years: stored
# ones by policy, shifted ones by their bounds, and those read from text by a test.
FIRST, LAST = date(1, 1, 1), date(9998, 12, 31)
BOUNDS_NEEDED = "needs a date whose bounds stay within the years 1 to 9998"


def part_of(argument: Expression, known: set[str]) -> str:
    """Return the constant part name of a date function."""
    name = argument.value if isinstance(argument, Literal) else None
    if not isinstance(name, str) or name not in known:
        raise Unfit(f"knows the parts {', '.join(sorted(known))}; got {name!r}")
    return name


def need_moment(argument: Expression) -> None:
    """Refuse what is not a date or timestamp."""
    if argument.domain.type not in MOMENTS:
        raise Unfit(f"needs a date or timestamp, got {describe(argument)}")


def _truncate(arguments: tuple[Expression, ...]) -> Domain:
    part = part_of(arguments[0], {"year", "quarter", "month", "week", "day", "hour"})
    value = arguments[1]
    need_moment(value)
    low, high = value.domain.low, value.domain.high
    if not isinstance(low, date) or not isinstance(high, date):
        return Domain(Type.TIMESTAMP, value.domain.nullable)
    first, last = truncated(part, low), truncated(part, high)
    steps: list[Value] = []
    moment = first
    while moment <= last and len(steps) <= MEMBERS_MAX:
        steps.append(moment)
        if _day(moment) > LAST - timedelta(days=366):  # Python's calendar ends in year 9999
            return Domain(Type.TIMESTAMP, value.domain.nullable, first, last)
        moment = following(part, moment)
    values = tuple(steps) if len(steps) <= MEMBERS_MAX else None
    return Domain(Type.TIMESTAMP, value.domain.nullable, first, last, values)


def truncated(part: str, value: date) -> datetime:
    """Return the first instant of the part that holds `value`; weeks begin on Monday."""
    day = datetime(value.year, value.month, value.day)
    if part == "hour":
        return day.replace(hour=value.hour) if isinstance(value, datetime) else day
    if part == "week":
        return day - timedelta(days=day.weekday())
    if part == "month":
        return day.replace(day=1)
    if part == "quarter":
        return day.replace(month=3 * ((day.month - 1) // 3) + 1, day=1)
    return day.replace(month=1, day=1) if part == "year" else day


def following(part: str, value: datetime) -> datetime:
    """Return the first instant of the next part."""
    step = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7),
            "month": timedelta(days=32), "quarter": timedelta(days=93),
            "year": timedelta(days=366)}[part]
    return truncated(part, value + step)


def _extract(arguments: tuple[Expression, ...]) -> Domain:
    part = part_of(arguments[0], set(PARTS))
    value = arguments[1]
    need_moment(value)
    ends = PARTS[part]
    if ends is not None:
        return integer(*ends, value.domain.nullable)
    low, high = value.domain.low, value.domain.high
    if not isinstance(low, date) or not isinstance(high, date):
        return integer(None, None, value.domain.nullable)
    extra = 1 if part == "isoyear" else 0
    return integer(low.year - extra, high.year + extra, value.domain.nullable)


def _extract_value(part: str, value: date) -> int | None:
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    found = {
        "year": moment.year, "isoyear": moment.isocalendar().year,
        "quarter": (moment.month - 1) // 3 + 1, "month": moment.month,
        "week": moment.isocalendar().week, "day": moment.day,
        "dayofweek": moment.isoweekday() % 7, "isodow": moment.isoweekday(),
        "dayofyear": moment.timetuple().tm_yday, "hour": moment.hour, "minute": moment.minute,
        "second": moment.second,
    }
    return found[part]


def _difference(arguments: tuple[Expression, ...]) -> Domain:
    part = part_of(arguments[0], set(DAYS))
    for argument in arguments[1:]:
        need_moment(argument)
    start, end = arguments[1].domain, arguments[2].domain
    nullable = any_null(arguments)
    if None in (start.low, start.high, end.low, end.high):
        return integer(None, None, nullable)
    low = _units(part, end.low) - _units(part, start.high)
    high = _units(part, end.high) - _units(part, start.low)
    return integer(floor(low) - 1, ceil(high) + 1, nullable)


def _units(part: str, value: Value | None) -> float:
    """Return how many units lie before a moment; months are counted, not measured in days."""
    moment = as_moment(value, Type.TIMESTAMP)
    if not isinstance(moment, datetime):
        raise Unfit(f"needs a moment, got {value!r}")
    months = moment.year * 12 + moment.month
    if part in MONTHS:
        return months / MONTHS[part]
    return (moment - datetime(1, 1, 1)) / timedelta(days=1) / DAYS[part]


def _shift_days(arguments: tuple[Expression, ...]) -> Domain:
    value, days = arguments
    if value.domain.type is not Type.DATE:
        raise Unfit(f"adds days to a date, got {describe(value)}; for a timestamp use an INTERVAL")
    ends = days.domain.interval
    if days.domain.type is not Type.INTEGER or ends is None or max(map(abs, ends)) > SHIFT_MAX:
        raise Unfit(f"adds whole days between -{SHIFT_MAX} and {SHIFT_MAX} to a date")
    low = _shifted(value.domain.low, int(ends[0]))
    high = _shifted(value.domain.high, int(ends[1]))
    if low is None or high is None:
        raise Unfit(BOUNDS_NEEDED)
    return Domain(Type.DATE, any_null(arguments), low, high)


def _shifted(value: Value | None, days: int) -> date | None:
    if not isinstance(value, date):
        return None
    try:
        moved = value + timedelta(days=days)
    except OverflowError:
        return None
    return moved if FIRST <= _day(moved) <= LAST else None


def _day(value: date) -> date:
    return value.date() if isinstance(value, datetime) else value


def _shift(arguments: tuple[Expression, ...]) -> Domain:
    part = part_of(arguments[0], set(DAYS))
    count, value = arguments[1], arguments[2]
    need_moment(value)
    if not (isinstance(count, Literal) and isinstance(count.value, int)):
        raise Unfit("needs a whole constant in INTERVAL")
    days = abs(count.value) * {"month": 31.0, "quarter": 93.0, "year": 366.0}.get(part, DAYS[part])
    if not days <= SHIFT_MAX * 10:
        raise Unfit(f"accepts an INTERVAL of at most {SHIFT_MAX * 10} days")
    reach = int(days) + 1
    low = _shifted(value.domain.low, min(0, reach if count.value > 0 else -reach))
    high = _shifted(value.domain.high, max(0, reach if count.value > 0 else -reach))
    if low is None or high is None:
        raise Unfit(BOUNDS_NEEDED)
    ends = as_moment(low, Type.TIMESTAMP), as_moment(high, Type.TIMESTAMP)
    return Domain(Type.TIMESTAMP, value.domain.nullable, *ends)


def _shift_sql(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
    part = part_of(arguments[0], set(DAYS))
    return f"({printed[2]} + to_{part}s({printed[1]}))" if part != "quarter" else (
        f"({printed[2]} + to_months(3 * {printed[1]}))"
    )


def _cast(arguments: tuple[Expression, ...]) -> Domain:
    target, value = arguments
    kind = Type(target.value) if isinstance(target, Literal) else Type.NULL
    source = value.domain
    if source.type in (Type.UNIT, Type.KEY, Type.IMAGE):
        raise Unfit(f"cannot cast {describe(value)}")
    if kind is source.type:
        return source
    ends = source.interval
    if kind is Type.REAL and ends is not None:
        return real(*ends, source.nullable)
    if kind is Type.INTEGER and ends is not None:
        return integer(int(ends[0]) - 1 if ends[0] % 1 else ends[0],
                       int(ends[1]) + 1 if ends[1] % 1 else ends[1], source.nullable)
    if kind in MOMENTS and source.type in MOMENTS:
        return _cast_moment(kind, source)
    if kind is Type.TEXT:
        return text(source.nullable)
    if kind is Type.BOOLEAN:
        return boolean(True)
    if kind in MOMENTS and source.type not in (Type.TEXT, Type.NULL):
        raise Unfit(f"cannot cast {describe(value)} to a {kind.value}")
    return Domain(kind, True)


def _cast_moment(kind: Type, source: Domain) -> Domain:
    if source.low is None or source.high is None:
        return Domain(kind, source.nullable)
    if kind is Type.TIMESTAMP:
        ends = as_moment(source.low, kind), as_moment(source.high, kind)
        return Domain(kind, source.nullable, *ends)
    low, high = (x.date() if isinstance(x, datetime) else x for x in (source.low, source.high))
    return Domain(kind, source.nullable, low, high)


SQL_TYPES = {
    Type.BOOLEAN: "BOOLEAN", Type.INTEGER: "BIGINT", Type.REAL: "DOUBLE", Type.TEXT: "VARCHAR",
    Type.DATE: "DATE", Type.TIMESTAMP: "TIMESTAMP", Type.NULL: "VARCHAR",
}


def _cast_sql(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
    target, value = arguments
    kind = Type(target.value) if isinstance(target, Literal) else Type.NULL
    inner = printed[1]
    if kind is Type.TEXT and value.domain.type is Type.INTEGER:
        inner = f"TRY_CAST({inner} AS BIGINT)"  # arithmetic is in DOUBLE and would print 3.0
    if kind is Type.TEXT and value.domain.type is Type.REAL:
        inner = f"({inner} + 0e0)"  # of equal zeros only one may have a sign that shows
    cast = f"TRY_CAST({inner} AS {SQL_TYPES[kind]})"
    if kind is Type.REAL and value.domain.type is Type.TEXT:  # 'nan' and 'inf' are text too
        return f"CASE WHEN isfinite({cast}) THEN {cast} END"
    if kind in MOMENTS and value.domain.type is Type.TEXT:  # so is 'infinity', and year 5000000
        after = LAST + timedelta(days=1)
        return (f"CASE WHEN {cast} >= {SQL_TYPES[kind]} '{FIRST}' AND {cast} < "
                f"{SQL_TYPES[kind]} '{after}' THEN {cast} END")
    return cast


def _cast_value(target: str, value: Value) -> Value | None:
    kind = Type(target)
    if kind is Type.TEXT and isinstance(value, str):
        return value
    if kind is Type.TEXT and isinstance(value, bool):
        return str(value).lower()
    if kind is Type.TEXT and (isinstance(value, int) or type(value) is date):
        return str(value)
    if kind is Type.INTEGER and isinstance(value, bool | int):
        return int(value)
    if kind is Type.REAL and isinstance(value, bool | int | float):
        return float(value)
    if kind is Type.DATE and isinstance(value, date):
        return value.date() if isinstance(value, datetime) else value
    if kind is Type.TIMESTAMP and isinstance(value, date):
        return as_moment(value, kind)
    if kind is Type.BOOLEAN and isinstance(value, bool | int | float):
        return bool(value)
    raise Unfit(f"the values of a cast of {value!r} to {target} are not enumerated")


def _called(name: str):  # type: ignore[no-untyped-def]
    def show(printed: tuple[str, ...], arguments: tuple[Expression, ...]) -> str:
        return f"{name}({', '.join(printed)})"

    return show


CALENDAR: tuple[Function, ...] = (
    Function("date_trunc", 2, 2, _truncate,
             lambda p, a: f"CAST(date_trunc({p[0]}, {p[1]}) AS TIMESTAMP)", truncated),
    Function("extract", 2, 2, _extract, _called("date_part"), _extract_value),
    Function("date_diff", 3, 3, _difference, _called("date_diff")),
    Function("add_days", 2, 2, _shift_days,
             lambda p, a: f"({p[0]} + TRY_CAST({p[1]} AS INTEGER))",
             lambda x, n: x + timedelta(days=int(n))),
    Function("add_interval", 3, 3, _shift, _shift_sql),
    Function("cast", 2, 2, _cast, _cast_sql, _cast_value),
)
