"""One scalar as written in, a typed value out: each reader says what it would have accepted."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal

from planner.policy_text import Scalar, shown

# The core schema of YAML 1.2, with at most three digits of exponent so that no number is huge.
_WHOLE = re.compile(r"[-+]?[0-9]{1,40}")
_NUMBER = re.compile(r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,3})?")
_LIKE_NUMBER = re.compile(r"0[xo][0-9a-fA-F]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?")
_FLAGS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def read_decimal(value: object) -> Decimal:
    """Read an exact decimal."""
    if isinstance(value, bool):
        raise ValueError(f"{shown(value)} is not a number; write one such as 0.5 or 1e-6")
    if isinstance(value, Scalar | str):
        text = value if isinstance(value, str) else value.text
        if _NUMBER.fullmatch(text):
            return Decimal(text)
    elif isinstance(value, int | Decimal):
        return Decimal(value)
    elif isinstance(value, float):
        return Decimal(repr(value))
    raise ValueError(f"{shown(value)} is not a number; write one such as 0.5 or 1e-6")


def read_whole(value: object) -> int:
    """Read a whole number; `1e3` is one, `0.5` is not."""
    try:
        number = read_decimal(value)
    except ValueError:
        number = None
    if number is None or not number.is_finite() or number != number.to_integral_value():
        raise ValueError(f"{shown(value)} is not a whole number; write one such as 20")
    return int(number)


def read_flag(value: object) -> bool:
    """Read true or false; in YAML 1.2 `yes` and `on` are words."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Scalar) and value.plain and value.text in _FLAGS:
        return _FLAGS[value.text]
    raise ValueError(f"{shown(value)} is not a truth value; write true or false")


def read_word(value: object) -> str:
    """Read text that is not empty."""
    text = value.text if isinstance(value, Scalar) else value
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{shown(value)} is not text; write a word")
    return text


def read_date(value: object) -> date:
    """Read a day, as in 2015-01-31."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    text = value.text if isinstance(value, Scalar) else value
    if isinstance(text, str) and _DATE.fullmatch(text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{shown(value)} is not in the calendar") from None
    raise ValueError(f"{shown(value)} is not a date; write one such as 2015-01-31")


def read_timestamp(value: object, *, end_of_day: bool) -> datetime:
    """Read a moment; a bare day is its first or its last microsecond."""
    if isinstance(value, datetime) and value.tzinfo is None:
        return value
    text = value.text if isinstance(value, Scalar) else value
    try:
        if isinstance(text, str) and _TIMESTAMP.fullmatch(text):
            return datetime.fromisoformat(text)
        if isinstance(text, str) and _DATE.fullmatch(text):
            day = datetime.fromisoformat(text)
            whole_day = {"hour": 23, "minute": 59, "second": 59, "microsecond": 999_999}
            return day.replace(**whole_day) if end_of_day else day  # type: ignore[arg-type]
    except ValueError:
        raise ValueError(f"{shown(value)} is not in the calendar") from None
    example = "write local time without a zone, such as 2015-01-31 08:30:00"
    raise ValueError(f"{shown(value)} is not a timestamp; {example}")


def read_category(value: object) -> str | int:
    """Read one category: a whole number where it is written as one, else a word.

    A value that could be meant either way (`010`, `1.5`, `0x1F`, an empty one) is refused:
    quotes decide.
    """
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if not isinstance(value, Scalar):
        raise ValueError(f"{shown(value)} is not a category; write a word or a whole number")
    text = value.text
    if not value.plain:
        return text
    if _WHOLE.fullmatch(text):
        if text.lstrip("+-") == "0" or not text.lstrip("+-").startswith("0"):
            return int(text)
        raise ValueError(f"{value} may be a number or a code; write \"{text}\" or {int(text)}")
    if _NUMBER.fullmatch(text) or _LIKE_NUMBER.fullmatch(text):
        raise ValueError(
            f"{value} is a number but not a plain whole one; quote it (\"{text}\") if the column "
            "is text, or declare the column real"
        )
    return text
