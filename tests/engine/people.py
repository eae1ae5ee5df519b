"""A table of one patient's extreme values, every function spelt over its columns, and what of an
expression's claims does not hold on it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from random import Random
from typing import Any

import duckdb

from engine import Engine
from engine.database import run
from planner.domain import Domain, Type
from planner.emit import printer_for
from planner.narrowing import public_keys

WORDS = ("A", "b", "ß", "İ", "Σς", "é", "e\u0301", "\U0001f9ec", " padded ", "\ttab", "it's",
         "", "nan", "5000000-01-01", "Straße")
POLICY = """\
discreet: 1
database: {path}
ledger: {ledger}
budget: {{epsilon: 3, delta: 1.0e-6}}
defaults: {{epsilon: 0.1, delta: 1.0e-9, rows_per_unit: 5, max_rows_per_unit: 100}}
unit: people.id
tables:
  people:
    columns:
      id: unit
      flag: boolean
      small: {{integer: [-3, 7]}}
      large: {{integer: [-9007199254740992, 9007199254740992]}}
      level: {{category: [-1, 0, 10]}}
      real: {{real: [-1000, 1000]}}
      wide: {{real: [-1.0e+200, 1.0e+200]}}
      tiny: {{real: [0, 1]}}
      day: {{date: [2015-12-25, 2026-12-31]}}
      ages: {{date: [0001-01-01, 9998-12-31]}}
      moment: {{timestamp: [2015-01-01, 2026-12-31T23:59:59]}}
      word: {{category: [{words}]}}
      free: text
"""
ROW = ("true", "3", "12", "10", "1.5", "2.5", "0.5", "DATE '2020-06-15'", "DATE '2020-06-15'",
       "TIMESTAMP '2020-06-15 13:14:15'", "'A'", "'plain'")
EXTREMES: dict[str, tuple[str, ...]] = {
    "flag": ("NULL", "false"),
    "small": ("NULL", "-3", "7", "0", "2147483647", "-2147483648"),
    "large": ("NULL", "9007199254740992", "-9007199254740992", "9223372036854775807",
              "-9223372036854775808", "0"),
    "level": ("NULL", "-1", "0", "11"),
    "real": ("NULL", "'nan'::DOUBLE", "'inf'::DOUBLE", "'-inf'::DOUBLE", "-0.0", "0.0", "5e-324",
             "1e308", "-1e308", "999.9999999999999", "0.5", "-0.5", "2.5"),
    "wide": ("NULL", "1e200", "-1e200", "1e308", "-0.0", "5e-324"),
    "tiny": ("NULL", "0", "1", "5e-324", "2.2250738585072014e-308", "0.1"),
    "day": ("NULL", "DATE '2015-12-25'", "DATE '2026-12-31'", "DATE '2016-02-29'",
            "DATE '2024-12-30'", "DATE 'infinity'", "DATE '-infinity'", "DATE '5000000-01-01'",
            "DATE '2021-01-03'"),
    "ages": ("NULL", "DATE '0001-01-01'", "DATE '9998-12-31'", "DATE '5000000-01-01'",
             "DATE '1000-02-28'"),
    "moment": ("NULL", "TIMESTAMP '2015-01-01'", "TIMESTAMP '2026-12-31 23:59:59'",
               "TIMESTAMP '2016-02-29 23:59:59.999999'", "TIMESTAMP '294246-01-01'",
               "TIMESTAMP 'infinity'"),
    "word": ("NULL", *(f"'{w.replace(chr(39), chr(39) * 2)}'" for w in WORDS), "'unknown'"),
    "free": ("NULL", "''", "'nan'", "'inf'", "'infinity'", "'-infinity'", "'5000000-01-01'",
             "'5881580-07-10'", "'294247-01-10 04:00:54.775806'", "'9999-12-31'", "'0000-01-01'",
             "'2016-02-29'", "'99999999999999999999'", "'9223372036854775807'", "'1e400'",
             "'-1e-400'", "'true'", "'TRUE'", "'t'", "' 5 '", "'0x10'", "'1_000'", "chr(0)",
             "repeat('a', 100000)", "repeat('A0.', 3000)", "'%'", "'_'", "'\\'", "'(['",
             "'\U0001f469\u200d\U0001f469\u200d\U0001f467'", "'e\u0301'", "'İıŉßΣς'", "'\u202e'",
             "'2020-01-01 25:00:00'", "'epoch'", "'12:00'", "'-0'", "'NULL'"),
}
COLUMNS = tuple(EXTREMES)


def _write(path: Path, extreme: bool, mixed: int) -> None:
    with duckdb.connect(str(path)) as c:
        c.execute("CREATE TABLE people (id BIGINT, flag BOOLEAN, small BIGINT, large BIGINT, "
                  "level BIGINT, real DOUBLE, wide DOUBLE, tiny DOUBLE, day DATE, ages DATE, "
                  "moment TIMESTAMP, word VARCHAR, free VARCHAR)")
        for patient in range(4):
            c.execute(f"INSERT INTO people VALUES ({patient}, {', '.join(ROW)})")
        if not extreme:
            return
        for place, name in enumerate(COLUMNS):
            for value in EXTREMES[name]:
                row = [*ROW[:place], value, *ROW[place + 1 :]]
                c.execute(f"INSERT INTO people VALUES (99, {', '.join(row)})")
        r = Random(9)
        for i in range(40 + mixed):
            row = [EXTREMES[n][i % len(EXTREMES[n])] if i < 40 else r.choice(EXTREMES[n])
                   for n in COLUMNS]
            c.execute(f"INSERT INTO people VALUES (99, {', '.join(row)})")


def open_people(folder: Path, extreme: bool, mixed: int = 0) -> Engine:
    """Open four ordinary patients; with `extreme` also one with every extreme value of every
    column, and `mixed` rows of extremes drawn together."""
    folder.mkdir()
    _write(folder / "people.duckdb", extreme, mixed)
    words = ", ".join('"' + w.replace("\t", "\\t") + '"' for w in WORDS)
    text = POLICY.format(path=folder / "people.duckdb", ledger=folder / "people.ledger.sqlite",
                         words=words)
    text = text.replace("max_rows_per_unit: 100", "max_rows_per_unit: 1000")
    (folder / "people.yaml").write_text(text)
    return Engine.open(folder / "people.yaml", insecure_testing=True, seed=7)


def inside(value: Any, domain: Domain) -> bool:
    if value is None:
        return domain.nullable
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if domain.values is not None and domain.type is not Type.BOOLEAN:
        return value in domain.values
    if domain.interval is not None:
        low, high = domain.interval
        slack = 1e-9 * max(1.0, abs(low), abs(high))  # the last bit of a library function
        return low - slack <= float(value) <= high + slack
    low_end, high_end = domain.low, domain.high
    if isinstance(low_end, date) and isinstance(high_end, date):
        return _moment(low_end) <= _moment(value) <= _moment(high_end)
    return True


def _moment(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)


def check_claims(engine: Engine, release: Any) -> int:
    """Check what the planner claims of keys and arguments; return how many values were seen.

    No row may raise or change type, every value lies in the domain, and every key in the list of
    public keys, where there is one.
    """
    arguments = [m.argument for m in release.measures if m.argument is not None]
    expressions = [*release.keys, *arguments]
    if not expressions:
        return 0
    printer = printer_for(release.input, expressions)
    shown = ", ".join(printer.scalar(e) for e in expressions)
    rows = run(engine._data.database, f"SELECT {shown} FROM {printer.relation(release.input)}").rows
    for place, expression in enumerate(release.keys):
        outside = {row[place] for row in rows if not inside(row[place], expression.domain)}
        assert outside == set(), f"outside {expression.domain}"
    for place in range(len(expressions)):
        types = {type(row[place]) for row in rows if row[place] is not None}
        assert len(types) <= 1, f"{types} in one column"
    keys = public_keys(release.keys, release.input) if release.keys else None
    if keys is not None:
        assert {tuple(row[: len(release.keys)]) for row in rows} <= set(keys)
    return len(rows) * len(expressions)


SPELLINGS = (
    "flag AND small > 2", "flag OR real > 0.5", "NOT flag", "small = large", "real < wide",
    "tiny <= 0.5", "word IS NOT DISTINCT FROM free", "small IN (1, 2, 7)", "free IS NULL",
    "CASE WHEN flag THEN small END", "CASE WHEN flag THEN small ELSE 0.5 END",
    "CASE WHEN flag THEN word WHEN small > 0 THEN 'other' END", "CASE WHEN flag THEN day END",
    "CASE WHEN flag THEN day ELSE moment END", "COALESCE(small, 9)", "COALESCE(day, moment)",
    "COALESCE(word, 'none')", "COALESCE(small, real)", "NULLIF(small, 3)", "NULLIF(word, 'A')",
    "NULLIF(real, 0)", "LEAST(small, 2)", "GREATEST(small, 2.5)", "LEAST(small, large, real)",
    "GREATEST(day, DATE '2020-01-01')", "LEAST(word, 'b')", "CLAMP(real, -1, 1)",
    "CLAMP(large, 0, 5)", "CLAMP(small, 3, 3)",
    "small + large", "small - real", "large * large", "wide * wide", "wide + wide", "real * 1e150",
    "small / 0", "small / level", "real / tiny", "1 / real", "wide / 1e-200", "large // small",
    "small // 2", "real // 2", "small // level", "level // 3", "small % 4", "small % level",
    "real % 0.3", "large % 7", "-small", "-real", "-wide", "ABS(large)", "ABS(small)", "SIGN(real)",
    "FLOOR(real)", "FLOOR(small / 2)", "CEIL(real)", "TRUNC(real)", "CEIL(wide)", "ROUND(real)",
    "ROUND(real, 1)", "ROUND(real, -2)", "ROUND(small, -1)", "ROUND(large, -3)", "ROUND(wide, 15)",
    "ROUND(wide, -15)", "SQRT(real)", "SQRT(small)", "LN(real)", "LN(tiny)", "LN(large)",
    "LOG(real)", "LOG10(tiny)", "LOG2(tiny)", "LOG(2, tiny)", "EXP(real)", "EXP(wide)",
    "EXP(small)", "POW(small, 2)", "POW(real, 3)", "POW(wide, 2)", "POW(real, -1)",
    "POW(real, 0.5)", "POW(small, small)", "POW(0, real)",
    "LOWER(word)", "UPPER(word)", "LOWER(free)", "UPPER(free)", "TRIM(word)", "LTRIM(free)",
    "RTRIM(word)", "TRIM(free)", "LENGTH(word)", "LENGTH(free)", "SUBSTR(word, 1, 2)",
    "SUBSTR(word, -2)", "SUBSTR(word, 0, 3)", "SUBSTR(free, 2, -1)", "SUBSTR(word, 2)",
    "LEFT(word, 1)", "LEFT(word, -1)", "RIGHT(word, 1)", "RIGHT(free, -2)", "LEFT(free, 10000)",
    "REPLACE(word, 'A', 'xyz')", "REPLACE(free, 'a', '')", "REPLACE(free, '', 'x')",
    "STRPOS(word, 'a')", "STRPOS(free, '')", "starts_with(word, 'A')", "starts_with(free, '')",
    "contains(free, 'a')", "contains(word, word)", "CONCAT(word, free)", "CONCAT(word, small)",
    "word || '/' || small", "free || free", "real || ''", "day || ''", "moment || ''", "flag || ''",
    "free LIKE 'a%'", "free LIKE '%\\%%'", "word NOT LIKE '_'", "free ILIKE 'A%'",
    "regexp_matches(free, '^[a-z]+$')", "regexp_matches(word, '.')",
    "CAST(small AS VARCHAR)", "CAST(large AS VARCHAR)", "CAST(real AS VARCHAR)",
    "CAST(small + 1 AS VARCHAR)", "CAST(level AS BOOLEAN)", "CAST(real AS BIGINT)",
    "CAST(wide AS BIGINT)", "CAST(tiny AS INTEGER)", "CAST(flag AS INTEGER)",
    "CAST(free AS BIGINT)", "CAST(free AS DOUBLE)", "CAST(free AS DATE)", "CAST(free AS TIMESTAMP)",
    "CAST(free AS BOOLEAN)", "CAST(word AS DATE)", "CAST(day AS TIMESTAMP)", "CAST(moment AS DATE)",
    "CAST(ages AS TIMESTAMP)", "CAST(day AS VARCHAR)", "CAST(real AS BOOLEAN)",
    "CAST(NULL AS DATE)", "CAST(small AS DOUBLE)", "CAST(word AS DOUBLE)",
    *(f"DATE_TRUNC('{p}', {c})" for p in ("year", "quarter", "month", "week", "day")
      for c in ("day", "CAST(free AS DATE)")),
    "DATE_TRUNC('hour', CAST(free AS TIMESTAMP))", "DATE_TRUNC('month', moment + INTERVAL 20 YEAR)",
    "DATE_TRUNC('year', ages)",
    *(f"EXTRACT({p} FROM {c})"
      for p in ("year", "isoyear", "quarter", "month", "week", "day", "dow", "isodow", "doy",
                "hour", "minute", "second")
      for c in ("day", "moment", "CAST(free AS TIMESTAMP)")),
    *(f"EXTRACT({p} FROM ages)" for p in ("year", "isoyear", "week", "second")),
    *(f"DATE_DIFF('{p}', {a}, {b})" for p in ("day", "week", "month", "quarter", "year", "hour",
                                              "minute", "second")
      for a, b in (("day", "DATE '2020-02-29'"), ("CAST(free AS DATE)", "day"),
                   ("moment", "day"))),
    *(f"{c} {sign} INTERVAL {n} {p}" for p in ("DAY", "MONTH", "YEAR", "HOUR", "SECOND", "WEEK",
                                               "QUARTER")
      for c, sign, n in (("day", "+", 1), ("moment", "-", 100), ("ages", "-", 1))),
    "day + small", "day - small", "day + 100000", "ages + 1", "day - DATE '2020-01-01'",
    "day + CAST(real AS INTEGER)", "CAST(free AS DATE) + 5", "day + large",
    "CAST(free AS DATE) < moment", "ages < moment", "CAST(free AS TIMESTAMP) = day",
    "day IN (DATE '2016-02-29', DATE '2020-06-15')", "moment BETWEEN '2016-01-01' AND '2017-01-01'",
    "small < NULL", "NULL IS NULL", "COALESCE(NULL, small)", "LOWER(NULL)", "NULL + small",
    "DATE_TRUNC('month', NULL)", "YEAR(NULL)", "LENGTH(NULL)", "NULL || word", "ABS(NULL)",
    "CLAMP(NULL, 0, 1)", "NULL LIKE 'a'", "DATE_DIFF('day', NULL, day)", "flag AND NULL",
)

# Columns of one kind may stand for each other in an expression.
KINDS = {"flag": "truth", "small": "number", "large": "number", "level": "number",
         "real": "number", "wide": "number", "tiny": "number", "day": "date", "ages": "date",
         "moment": "moment", "word": "text", "free": "text"}
_NAMES = re.compile(rf"\b({'|'.join(COLUMNS)})\b")


def nested(r: Random, kinds: Mapping[str, Sequence[str]], spelling: str, depth: int) -> str:
    """Put other spellings of the same kind in place of some of the columns."""
    def other(found: re.Match[str]) -> str:
        choices = kinds.get(KINDS[found[0]], ())
        if depth <= 0 or not choices or r.random() < 0.3:
            return found[0]
        return f"({nested(r, kinds, r.choice(choices), depth - 1)})"

    return _NAMES.sub(other, spelling)
