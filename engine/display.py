"""A result in; the same answer as text, HTML, Markdown, CSV or JSON out.

Text, HTML and Markdown round each noisy number to what its interval supports. Guarantee: a
number moves by at most half a unit of its last shown digit, and the shown interval contains the
whole interval, so rounding never makes an answer look surer than it is. CSV and JSON round
nothing.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from html import escape
from typing import TYPE_CHECKING, Any

from planner.domain import NUMBERS, Type
from planner.workload_plan import shortened

if TYPE_CHECKING:
    from engine.postprocess import Cell
    from engine.result import Result
    from engine.results import Results
    from mechanisms.loss import PrivacyLoss
    from planner.plan import Plan
    from planner.uncertainty import Interval

__all__ = [
    "NOT_PRIVATE", "Shown", "as_csv", "as_html", "as_json", "as_markdown", "as_text",
    "batch_footer", "footer", "loss_json", "many_as_csv", "many_as_html", "many_as_json",
    "many_as_markdown", "many_as_text", "noisy_columns", "plan_json", "price_words",
    "printable", "show",
]

ROWS_SHOWN = 40
TEXT_SHOWN = 60  # characters of one text cell; CSV and JSON have all of them
NOT_PRIVATE = "NOT PRIVATE: insecure testing, nothing was charged; this answer protects nobody"
_EXACT = Context(prec=700, Emax=10_000, Emin=-10_000)  # holds every float and its neighbours
_ALIKE = 1e-6  # sides of an interval that differ by less, relatively, are shown as one


@dataclass(frozen=True, slots=True)
class Shown:
    """One cell as a reader sees it: the value, and how far the exact one may be."""

    value: str
    spread: str = ""

    def __str__(self) -> str:
        return f"{self.value} {self.spread}" if self.spread else self.value


# ---- one number ---------------------------------------------------------------------------


def show(
    value: Cell, interval: Interval | None, kind: Type = Type.REAL, noisy: bool = True
) -> Shown:
    """Round one cell honestly: `1,235 ± 41`, or `1.2 (1.0 .. 1.7)` where the sides differ.

    `± ?` stands for a noisy number whose error is not known.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Shown(_plain(value))
    if interval is None or not all(math.isfinite(x) for x in (value, *interval)):
        return Shown(_plain(value), "± ?" if noisy else "")
    number, low, high = (_decimal(x) for x in (value, *interval))
    half = _EXACT.divide(_EXACT.subtract(high, low), Decimal(2))
    if not half > 0:
        return Shown(_commas(number) if noisy else _plain(value))
    place = half.adjusted() - 1  # the half-width has two digits
    if kind is Type.INTEGER and isinstance(value, int):
        place = max(place, 0)
    shown = _rounded(number, place, ROUND_HALF_EVEN)
    below, above = _EXACT.subtract(number, low), _EXACT.subtract(high, number)
    if abs(_EXACT.subtract(below, above)) <= half * Decimal(_ALIKE):
        # All of the same width look alike: each pays for the largest rounding of its value.
        is_whole = place == 0 and kind is Type.INTEGER and isinstance(value, int)
        slack = Decimal(0) if is_whole else _EXACT.scaleb(Decimal(5), place - 1)
        reach = _EXACT.add(max(below, above), slack)
        return Shown(_commas(shown), f"± {_commas(_rounded(reach, place, ROUND_CEILING))}")
    ends = (_rounded(low, place, ROUND_FLOOR), _rounded(high, place, ROUND_CEILING))
    return Shown(_commas(shown), f"({_commas(ends[0])} .. {_commas(ends[1])})")


def _decimal(value: float) -> Decimal:
    """Return a number as people read it: 0.1 is one tenth."""
    return Decimal(value) if isinstance(value, int) else Decimal(repr(value))


def _rounded(value: Decimal, place: int, rounding: str) -> Decimal:
    """Round to a multiple of 10**place."""
    return value.quantize(Decimal((0, (1,), place)), rounding, _EXACT)


def _commas(value: Decimal) -> str:
    text = f"{value:,f}"
    return text[1:] if text.startswith("-") and not value else text


def _plain(value: Cell) -> str:
    """Write a value that has no noise of its own: keys keep their digits, without commas."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return str(value)


def printable(text: str) -> str:
    """Replace what could move a terminal's cursor or break a line by its escape."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


# ---- what every form says -----------------------------------------------------------------


def noisy_columns(result: Result) -> tuple[int, ...]:
    """Return the places of the columns that carry intervals."""
    expected = result.plan.expected_error
    return tuple(
        i for i, name in enumerate(result.columns)
        if expected.get(name) is not None or any(row[i] is not None for row in result.intervals)
    )


def price_words(loss: PrivacyLoss) -> str:
    """Say a price shortly: `epsilon 0.1, delta 1e-09`."""
    delta = f", delta {loss.delta:.3g}" if loss.delta else ""
    return f"epsilon {loss.epsilon:.6g}{delta}"


def footer(result: Result) -> str:
    """Say in one line how many rows there are, of which groups, and what they were charged."""
    count = len(result)
    parts = ["1 row" if count == 1 else f"{count:,} rows"]
    if any(release.keys == "selected" for release in result.plan.releases):
        parts[0] += " (small groups are hidden)"
    elif result.plan.groups is not None and result.plan.groups not in (1, count):
        parts[0] += f" of {result.plan.groups:,} public groups"
    if not result.is_private:
        parts.append("nothing charged")
    elif not result.plan.releases:
        parts.append("free: no patient's data was read")
    elif result.cached:
        parts.append("free: answered before")
    else:
        shared = "" if result.together == 1 else f" for all {result.together} together"
        parts.append(f"price: {price_words(result.cost)}{shared}")
    if noisy_columns(result):
        parts.append("± is the noise at 95 %")
    if result.target is not None:
        parts.append(result.target.words)
    return "; ".join(parts)


def _grid(result: Result, limit: int | None) -> list[tuple[Shown, ...]]:
    """Return the first rows as their cells are shown."""
    noisy = frozenset(noisy_columns(result))
    types = result.table.types
    return [
        tuple(show(v, i, types[c], c in noisy) for c, (v, i) in enumerate(zip(*both, strict=True)))
        for both in list(zip(result.rows, result.intervals, strict=True))[:limit]
    ]


def _is_right(result: Result, column: int) -> bool:
    return result.table.types[column] in NUMBERS


# ---- text ---------------------------------------------------------------------------------


def as_text(result: Result, limit: int | None = ROWS_SHOWN) -> str:
    """Lay out a result for a terminal, at most `limit` rows of it (None: all)."""
    grid = _grid(result, limit)
    columns = [
        _text_column(name, [row[i] for row in grid], _is_right(result, i))
        for i, name in enumerate(result.columns)
    ]
    lines = [] if result.is_private else [NOT_PRIVATE]
    lines += ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    if len(result) > len(grid):
        lines.append(f"... {len(result) - len(grid):,} more rows")
    return "\n".join([*lines, footer(result)])


def _text_column(name: str, cells: list[Shown], right: bool) -> list[str]:
    """Return a column's heading, rule and cells, all equally wide."""
    title = _cut(printable(name))
    values = [_cut(printable(cell.value)) for cell in cells]
    inner = max(map(_width, values), default=0)
    spread = max((_width(cell.spread) + 1 for cell in cells if cell.spread), default=0)
    inner = max(inner, _width(title) - spread)
    lines = []
    for value, cell in zip(values, cells, strict=True):
        fill = " " * (inner - _width(value))
        tail = f" {cell.spread}" if cell.spread else ""
        text = fill + value if right else value + fill
        lines.append(text + tail + " " * (spread - _width(tail)))
    total = inner + spread
    fits = right and _width(title) <= inner
    head = " " * (inner - _width(title)) + title if fits else title
    return [head + " " * (total - _width(head)), "-" * total, *lines]


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else text[: TEXT_SHOWN - 3] + "..."


def _width(text: str) -> int:
    """Return how many places a text takes in a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def as_markdown(result: Result, limit: int | None = None) -> str:
    """Write a result as a Markdown table, rounded as in text."""
    lines = [] if result.is_private else [f"**{NOT_PRIVATE}**", ""]
    lines.append(_markdown_row(result.columns))
    rules = ("---:" if _is_right(result, i) else "---" for i in range(len(result.columns)))
    lines.append(_markdown_row(rules))
    lines += [_markdown_row(str(cell) for cell in row) for row in _grid(result, limit)]
    return "\n".join([*lines, "", f"*{footer(result)}*"])


def _markdown_row(cells: Iterable[str]) -> str:
    safe = (printable(c).replace("\\", "\\\\").replace("|", "\\|") for c in cells)
    return f"| {' | '.join(safe)} |"


def many_as_text(results: Results, limit: int | None = ROWS_SHOWN) -> str:
    """Lay out the answers of a batch one below the other, and their one price."""
    parts = [f"{n}. {shortened(result.plan.question)}\n{as_text(result, limit)}"
             for n, result in enumerate(results, start=1)]
    return "\n\n".join([*parts, batch_footer(results)])


def many_as_markdown(results: Results) -> str:
    """Write the answers of a batch as Markdown, a heading for each question."""
    parts = [f"### {n}. {printable(shortened(result.plan.question))}\n\n{as_markdown(result)}"
             for n, result in enumerate(results, start=1)]
    return "\n\n".join([*parts, f"*{batch_footer(results)}*"])


def many_as_html(results: Results) -> str:
    """Write the answers of a batch as HTML tables."""
    parts = [f"<h4>{n}. {escape(printable(shortened(result.plan.question)))}</h4>{as_html(result)}"
             for n, result in enumerate(results, start=1)]
    return "".join([*parts, f"<p>{escape(batch_footer(results))}</p>"])


def many_as_csv(results: Results) -> str:
    """Write the answers of a batch as CSV tables with an empty line between them."""
    return "\n\n".join(map(as_csv, results))


def many_as_json(results: Results) -> str:
    """Write the answers of a batch as JSON: a list of results and their one price."""
    found = {
        "is_private": results.is_private,
        "cached": results.cached,
        "cost": loss_json(results.cost),
        "left": None if results.left is None else loss_json(results.left),
        "results": [_json_of(result) for result in results],
    }
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)


def batch_footer(results: Results) -> str:
    """Say what all answers were charged together, and what is left."""
    count = len(results)
    asked = "1 question" if count == 1 else f"{count:,} questions"
    if not results.is_private:
        return f"{asked}; nothing charged"
    paid = "nothing: answered before" if results.cached else f"{price_words(results.cost)} together"
    left = "" if results.left is None else f"; left: {price_words(results.left)}"
    return f"{asked}; price: {paid}{left}"


# ---- HTML ---------------------------------------------------------------------------------

_TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"
_CELL = "padding:2px 10px;border-bottom:1px solid #ddd"
_QUIET = "color:#777"


def as_html(result: Result, limit: int | None = ROWS_SHOWN) -> str:
    """Write a result as an HTML table, each noisy number above a thin bar of its interval."""
    grid = _grid(result, limit)
    scales = {i: _scale(result, i) for i in noisy_columns(result)}
    head = "".join(
        f'<th style="{_CELL};text-align:{_side(result, i)}">{escape(printable(name))}</th>'
        for i, name in enumerate(result.columns)
    )
    body = []
    for shown, intervals in zip(grid, result.intervals, strict=False):
        cells = (
            f'<td style="{_CELL};text-align:{_side(result, i)}">'
            f"{_html_cell(cell, intervals[i], scales.get(i))}</td>"
            for i, cell in enumerate(shown)
        )
        body.append(f"<tr>{''.join(cells)}</tr>")
    more = len(result) - len(grid)
    note = escape(footer(result)) + (f"; {more:,} more rows are not shown" if more else "")
    warning = "" if result.is_private else f'<b style="color:#b00">{escape(NOT_PRIVATE)}</b>'
    return (
        f'<div class="discreet">{warning}<table style="{_TABLE}"><thead><tr>{head}</tr></thead>'
        f'<tbody>{"".join(body)}</tbody></table><small style="{_QUIET}">{note}</small></div>'
    )


def _side(result: Result, column: int) -> str:
    return "right" if _is_right(result, column) else "left"


def _scale(result: Result, column: int) -> tuple[float, float]:
    """Return where a column's bars begin and end: at zero, or at the outermost intervals."""
    ends = [end for row in result.intervals for end in row[column] or () if math.isfinite(end)]
    return min([0.0, *ends]), max([0.0, *ends])


def _html_cell(cell: Shown, interval: Interval | None, scale: tuple[float, float] | None) -> str:
    text = escape(printable(cell.value))
    if cell.spread:
        text += f' <span style="{_QUIET}">{escape(cell.spread)}</span>'
    if scale is None or interval is None or not all(map(math.isfinite, interval)):
        return text
    first, last = scale
    if not last > first:
        return text
    low, high = (100 * (end - first) / (last - first) for end in interval)
    bar = (f"linear-gradient(to right,#dce6f2 {low:.1f}%,#4a78b0 {low:.1f}%,"
           f"#4a78b0 {max(high, low + 1):.1f}%,transparent 0)")
    return f'{text}<div style="height:3px;min-width:80px;background:{bar}"></div>'


# ---- for programs -------------------------------------------------------------------------


def as_csv(result: Result) -> str:
    """Write unrounded values with `<name>_low` and `<name>_high` beside each noisy column.

    NULL is an empty field, an empty text is `""`.
    """
    names, rows = _wide(result)
    head: list[Cell] = list(names)
    lines = [",".join(map(_csv_field, line)) for line in [head, *rows]]
    return "\n".join(lines)


def _csv_field(value: Cell) -> str:
    if value is None:
        return ""
    text = repr(value) if isinstance(value, float) else _plain(value)
    needs_quotes = not text or any(c in text for c in ',"\r\n') or text != text.strip()
    return '"' + text.replace('"', '""') + '"' if needs_quotes else text


def as_json(result: Result) -> str:
    """Write unrounded values, intervals, price and a summary of the plan as JSON."""
    return json.dumps(_json_of(result), indent=2, ensure_ascii=False, allow_nan=False)


def _json_of(result: Result) -> dict[str, Any]:
    names, rows = _wide(result)
    return {
        "is_private": result.is_private,
        "cached": result.cached,
        "cost": loss_json(result.cost),
        **({} if result.target is None else {"target": asdict(result.target)}),
        "columns": list(names),
        "rows": [dict(zip(names, map(_json_value, row), strict=True)) for row in rows],
        "plan": plan_json(result.plan, with_sql=False),
    }


def plan_json(plan: Plan, with_sql: bool = True) -> dict[str, Any]:
    """Return a plan as plain JSON values."""
    found: dict[str, Any] = plan.to_dict()
    del found["sql"], found["outer_sql"]
    if with_sql:
        found |= {"sql": plan.sql, "outer_sql": plan.outer_sql}
    return found


def loss_json(loss: PrivacyLoss) -> dict[str, float]:
    """Return a price as plain JSON values."""
    return {"epsilon": loss.epsilon, "delta": loss.delta, "rdp": loss.rdp}


def _json_value(value: Any) -> Any:
    """Return a value JSON knows: dates as ISO text, and no number for NaN and infinities."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.isoformat()


def _wide(result: Result) -> tuple[tuple[str, ...], list[list[Cell]]]:
    """Return names and rows with both ends beside each noisy column; no name stands twice."""
    noisy = frozenset(noisy_columns(result))
    taken: list[str] = []
    own = [_free_name(name, taken) for name in result.columns]
    names: list[str] = []
    for i, name in enumerate(own):
        ends = ("low", "high") if i in noisy else ()
        names += [name, *(_free_name(f"{name}_{end}", taken) for end in ends)]
    rows: list[list[Cell]] = []
    for values, intervals in zip(result.rows, result.intervals, strict=True):
        row: list[Cell] = []
        for i, value in enumerate(values):
            row.append(value)
            if i in noisy:
                row.extend(intervals[i] or (None, None))
        rows.append(row)
    return tuple(names), rows


def _free_name(wanted: str, taken: list[str]) -> str:
    """Return the name, numbered where it is taken, and take it."""
    name, count = wanted, 2
    while name in taken:
        name, count = f"{wanted}_{count}", count + 1
    taken.append(name)
    return name
