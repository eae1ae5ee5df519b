"""A function that is not on the list in, the nearest SQL that is accepted out."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from sqlglot import exp

FALLBACK = "see the list of functions in the SQL reference"
_DAY, _MOMENT = "DATE '2026-01-01'", "TIMESTAMP '2026-01-01 00:00:00'"
_MONTH = "DATE_TRUNC('month', {})"

# What analysts write elsewhere -> what says nearly the same here. {} is what it was applied to. A
# clock is not read: what one question answers must not depend on when it is asked.
NEAREST: dict[str, str] = {
    "current_date": _DAY, "today": _DAY, "current_timestamp": _MOMENT, "now": _MOMENT,
    "getdate": _MOMENT,
    "time_to_str": _MONTH, "strftime": _MONTH, "to_char": _MONTH, "format_date": _MONTH,
    "date_format": _MONTH, "date_bin": _MONTH, "time_bucket": _MONTH, "last_day": _MONTH,
    "monthname": "MONTH({})", "dayname": "DAYOFWEEK({})",
    "time_to_unix": "DATE_DIFF('second', TIMESTAMP '2000-01-01 00:00:00', {})",
    "split_part": "LEFT({}, 3)", "split": "LEFT({}, 3)", "regexp_extract": "LEFT({}, 3)",
    "initcap": "UPPER({})", "cbrt": "SQRT({})",
}


def nearest(node: exp.Expression, names: Iterable[str]) -> str:
    """Return SQL for a refusal's hint: what may be meant, or a name that is nearly written."""
    name = str(node.this) if isinstance(node, exp.Anonymous) else (
        node.sql_name() if isinstance(node, exp.Func) else type(node).__name__)
    applied_to = _arguments(node)
    wanted = NEAREST.get(name.lower())
    if wanted is None:
        close = get_close_matches(name.lower(), sorted(names), 1, cutoff=0.7)
        return f"{close[0].upper()}({', '.join(applied_to)})" if close else FALLBACK
    if "{}" not in wanted:
        return wanted
    return wanted.format(applied_to[0]) if applied_to else FALLBACK


def _arguments(node: exp.Expression) -> list[str]:
    """Return what a function is applied to, columns first: TIME_BUCKET(INTERVAL ..., day)."""
    given = node.expressions if isinstance(node, exp.Anonymous) else [
        value for value in node.args.values() if isinstance(value, exp.Expression)
    ]
    ordered = sorted(given, key=lambda argument: argument.find(exp.Column) is None)
    return [argument.sql(dialect="duckdb") for argument in ordered]


__all__ = ["FALLBACK", "NEAREST", "nearest"]
