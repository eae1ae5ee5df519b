"""A result in; one noisy column drawn with its error bars, as a matplotlib figure, out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, cast

from engine.display import footer, noisy_columns, printable
from planner.domain import MOMENTS, NUMBERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from engine.postprocess import Cell
    from engine.result import Result

__all__ = ["PictureError", "draw", "need_matplotlib"]

MARKS_MAX = 80  # bars in one picture
SERIES_MAX = 10  # bars side by side, or lines
BARS_OF_NUMBERS = 12  # up to so many numbers are labels of bars; more are points on an axis
LABEL_SHOWN = 44
COLOURS = ("#4a78b0", "#d98b3a", "#5a9a68", "#b0545a", "#8672ad",
           "#8a6d5a", "#c77fae", "#7a7a7a", "#a5a83b", "#4ba3b3")


class PictureError(ValueError):
    """There is nothing to draw; the message says why and what could be drawn."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One number to draw: where, in which series, and how far it may be off."""

    place: Cell
    series: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn: `places` in order, one bar or point for each place and series."""

    title: str
    place_name: str
    series_name: str
    places: tuple[Cell, ...]
    series: tuple[str, ...]
    marks: tuple[Mark, ...]
    is_line: bool
    note: str


def need_matplotlib() -> None:
    """Raise PictureError where matplotlib is missing."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise PictureError("drawing needs matplotlib, which is missing: pip install discreet[demo]")


def draw(result: Result, column: str | None = None) -> Figure:
    """Draw one noisy column (the first where none is named) with its 95 % intervals.

    The other columns without noise are the labels: bars for categories, points for dates and
    for many numbers, and a colour for each value of a second one. Raises PictureError.
    """
    need_matplotlib()
    from matplotlib.figure import Figure

    chart = plan_chart(result, column)
    is_wide = not chart.is_line and _longest(chart.places) > 60 / max(1, len(chart.places))
    long = 1.6 + 0.26 * len(chart.places) * max(1, len(chart.series)) ** 0.6
    size = (8.0, min(max(long, 3.2), 16.0)) if is_wide else (8.0, 4.8)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    if chart.is_line:
        _draw_points(axes, chart)
    else:
        _draw_bars(axes, chart, across=is_wide)
    axes.set_title(_label(chart.title), loc="left", fontweight="bold")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(chart.series) > 1:
        axes.legend(title=_label(chart.series_name), frameon=False, loc="upper left",
                    bbox_to_anchor=(1, 1))
    caption = footer(result).replace("± is the noise at 95 %", "error bars: the noise at 95 %")
    figure.supxlabel(_label(caption + chart.note, 400), fontsize=8, color="#777777", x=0.01,
                     ha="left")
    if not result.is_private:
        figure.suptitle("NOT PRIVATE: insecure testing", color="#bb0000", fontweight="bold")
    return figure


# ---- what to draw -------------------------------------------------------------------------


def plan_chart(result: Result, column: str | None = None) -> Chart:
    """Choose axis, series and marks, or raise PictureError."""
    drawn = _column(result, column)
    noisy = frozenset(noisy_columns(result))
    keys = [i for i in range(len(result.columns)) if i not in noisy and i != drawn]
    axis, by = (keys[:1], keys[1:]) if keys else ([], [])
    if len(by) == 1 and _distinct(result, by) > SERIES_MAX >= _distinct(result, axis):
        axis, by = by, axis
    if len(by) > 0 and _distinct(result, by) > SERIES_MAX:
        names = ", ".join(result.columns[i] for i in by)
        raise PictureError(
            f"{names} has {_distinct(result, by)} values; at most {SERIES_MAX} can stand side by "
            "side: ask for fewer, or for one key"
        )
    title, note = result.columns[drawn], ""
    marks = _marks(result, drawn, axis, by)
    is_line = bool(axis) and _is_line(result, axis[0], marks)
    if is_line:
        unplaced = [m for m in marks if m.place is None]
        marks = [m for m in marks if m.place is not None]
        if unplaced:
            note = "; rows without a place on the axis (NULL) are not drawn"
    if not marks:
        raise PictureError(f"{title} has no row with a number; there is nothing to draw")
    places = tuple(dict.fromkeys(m.place for m in marks))
    if not is_line and len(marks) > MARKS_MAX:
        raise PictureError(
            f"{len(marks)} bars cannot be read, at most {MARKS_MAX} can: add ORDER BY {title} "
            "DESC LIMIT 20"
        )
    return Chart(
        title, result.columns[axis[0]] if axis else "",
        ", ".join(result.columns[i] for i in by), places,
        tuple(dict.fromkeys(m.series for m in marks)), tuple(marks), is_line, note,
    )


def _column(result: Result, column: str | None) -> int:
    noisy = noisy_columns(result)
    named = ", ".join(result.columns[i] for i in noisy)
    if column is None:
        if not noisy:
            raise PictureError("no column of this result is a noisy number; there is nothing to "
                               "draw: ask for a COUNT, SUM or AVG")
        return noisy[0]
    if column not in result.columns:
        raise PictureError(f"there is no column {column!r}; the columns are "
                           f"{', '.join(result.columns)}")
    found = result.columns.index(column)
    if found not in noisy:
        raise PictureError(f"column {column!r} has no error bars; "
                           + (f"these have: {named}" if named else "no column has any"))
    return found


def _distinct(result: Result, columns: Sequence[int]) -> int:
    return len({tuple(row[i] for i in columns) for row in result.rows})


def _marks(
    result: Result, drawn: int, axis: Sequence[int], by: Sequence[int]
) -> list[Mark]:
    """Return the numbers that can be drawn, in the order of the rows."""
    found = []
    for row, intervals in zip(result.rows, result.intervals, strict=True):
        value, ends = row[drawn], intervals[drawn]
        if not isinstance(value, int | float) or ends is None:
            continue
        if all(math.isfinite(x) for x in (value, *ends)):
            place = row[axis[0]] if axis else result.columns[drawn]
            series = " / ".join(_text(row[i]) for i in by)
            found.append(Mark(place, series, float(value), *ends))
    return found


def _is_line(result: Result, axis: int, marks: Sequence[Mark]) -> bool:
    kind = result.table.types[axis]
    places = {m.place for m in marks if m.place is not None}
    if kind in MOMENTS:
        return len(places) > 1
    return kind in NUMBERS and len(places) > BARS_OF_NUMBERS


def _text(value: Cell) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _label(text: str, longest: int = LABEL_SHOWN) -> str:
    """Return a text as a label: cut, and without a meaning for matplotlib's mathematics."""
    text = printable(text)
    text = text if len(text) <= longest else text[: longest - 3] + "..."
    return text.replace("$", r"\$")


def _longest(places: Sequence[Cell]) -> int:
    return min(LABEL_SHOWN, max((len(_text(place)) for place in places), default=0))


# ---- drawing ------------------------------------------------------------------------------


def _errors(marks: Sequence[Mark]) -> tuple[list[float], list[float]]:
    """Return how far the bars of error reach down and up."""
    return (
        [max(0.0, m.value - m.low) for m in marks], [max(0.0, m.high - m.value) for m in marks]
    )


def _draw_bars(axes: Axes, chart: Chart, *, across: bool) -> None:
    """Draw bars, upright or, for long labels, lying with the first on top."""
    thick = 0.8 / len(chart.series)
    at = {place: i for i, place in enumerate(chart.places)}
    look: dict[str, Any] = {"ecolor": "#333333", "error_kw": {"elinewidth": 1.2}, "capsize": 3}
    for i, name in enumerate(chart.series):
        marks = [m for m in chart.marks if m.series == name]
        shift = (i - (len(chart.series) - 1) / 2) * thick
        where = [at[m.place] + shift for m in marks]
        values, errors = [m.value for m in marks], _errors(marks)
        look |= {"label": _label(name), "color": COLOURS[i % len(COLOURS)]}
        if across:
            axes.barh(where, values, thick, xerr=errors, **look)
        else:
            axes.bar(where, values, thick, yerr=errors, **look)
    labels = [_label(_text(place)) for place in chart.places]
    if across:
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.axvline(0, color="#333333", linewidth=0.8)
        axes.set_ylabel(_label(chart.place_name))
        axes.xaxis.set_major_formatter(_number)
    else:
        axes.set_xticks(range(len(labels)), labels)
        axes.axhline(0, color="#333333", linewidth=0.8)
        axes.set_xlabel(_label(chart.place_name))
        axes.yaxis.set_major_formatter(_number)
        spare = max(0.0, (3 - len(labels)) / 2)  # one bar alone is not a wall
        axes.set_xlim(-0.6 - spare, len(labels) - 0.4 + spare)


def _draw_points(axes: Axes, chart: Chart) -> None:
    for i, name in enumerate(chart.series):
        marks = sorted((m for m in chart.marks if m.series == name), key=_order)
        axes.errorbar(
            cast(Any, [m.place for m in marks]), [m.value for m in marks], yerr=_errors(marks),
            fmt="o-", markersize=3.5, linewidth=1, capsize=2, elinewidth=1, label=_label(name),
            color=COLOURS[i % len(COLOURS)],
        )
    axes.axhline(0, color="#333333", linewidth=0.8)
    axes.set_xlabel(_label(chart.place_name))
    axes.yaxis.set_major_formatter(_number)


def _order(mark: Mark) -> Any:
    return mark.place.isoformat() if isinstance(mark.place, date) else mark.place


def _number(value: float, _: object) -> str:
    return f"{value:,.10g}"
