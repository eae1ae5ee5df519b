"""The values of a sum in, the integers that stand for them out; the snapshot holds most of them.

Beside each bounded real column the snapshot keeps round(x / unit) as an integer, where `unit` is a
power of two that follows from the declared bounds; a whole column is its own integer, with the
unit 1. A sum over such a column adds up stored integers: nothing is clamped, converted or rounded
row by row. The center of a mean is taken off afterwards, once per group.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp, isfinite, ldexp

from planner.domain import Domain, Type, integer
from planner.expression import Column, Expression
from planner.functions.arithmetic import half_away
from planner.relation import Relation, protected_scans

GRID_NAME = "__grid_{}"
GRID_MAX = 2**61
# Half the width of a column's bounds has so many bits in stored integers: rounding to them moves
# a value by less than 2^-24 of that half width, and a patient's noise is as large as his values.
STORED_BITS = 24
CENTER_BITS = 12
WHOLE_MAX = 2.0**53  # beyond this a DOUBLE has gaps between whole numbers
# A narrower interval than this many units is read as it is stored, as a DOUBLE.
UNITS_MIN = 2**16
# Noise on a finer grid has a larger scale in steps; the samplers go up to 2^39 and 2^40.
SCALE_MAX = 2.0**38


@dataclass(frozen=True, slots=True)
class Stored:
    """A column of the snapshot whose integers are summed: a row counts `integer * multiple -
    center` grid steps. `ends` are the integers to clamp to, each None where the build proved it."""

    column: Column
    multiple: int
    center: int
    ends: tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class Grid:
    """The integers that stand for values: value = step * integer, low <= integer <= high."""

    step: float
    low: int
    high: int
    stored: Stored | None = None

    @property
    def largest(self) -> int:
        return max(abs(self.low), abs(self.high))


def stored_unit(domain: Domain) -> float | None:
    """Return the unit of a column's stored integers, or None where it has none.

    Guarantee: a function of the declared type and bounds alone, by exact arithmetic, so that the
    build and every later query agree on it; a power of two (1 for whole numbers); no stored
    integer is beyond 2^53.
    """
    ends = domain.interval
    if ends is None or not domain.is_number:
        return None
    unit = 1.0 if domain.type is Type.INTEGER else _unit_for(ends)
    return unit if unit is not None and max(map(abs, ends)) / unit <= WHOLE_MAX else None


def _unit_for(ends: tuple[float, float]) -> float | None:
    half = ends[1] / 2 - ends[0] / 2
    if not 2.0**-900 < half < 2.0**900:
        return None
    return ldexp(1.0, frexp(half)[1] - STORED_BITS)


def stored_ends(domain: Domain) -> tuple[int, int] | None:
    """Return the least and the greatest integer that the bounds allow, or None without a unit."""
    unit, ends = stored_unit(domain), domain.interval
    if unit is None or ends is None:
        return None
    return _integers(ends, unit)


def _integers(ends: tuple[float, float], unit: float) -> tuple[int, int]:
    """Round both ends; rounding is monotone, so that what lies between them stays between."""
    return int(half_away(ends[0] / unit)), int(half_away(ends[1] / unit))


def has_grid_column(domain: Domain) -> bool:
    """Return whether the snapshot keeps integers in a column beside this one."""
    return domain.type is Type.REAL and stored_unit(domain) is not None


def middle_of(ends: tuple[float, float], type_: Type) -> float:
    """Return the middle of an interval, for real numbers as a whole number of its units.

    Any public number may be taken off before noise is added: this one keeps the rest small, and
    a sum of stored integers can take it off exactly.
    """
    middle = (ends[0] + ends[1]) / 2
    unit = None if type_ is Type.INTEGER or not isfinite(middle) else _unit_for(ends)
    if unit is None or not abs(middle) / unit <= WHOLE_MAX:
        return middle
    return half_away(middle / unit) * unit


def center_near(value: float, domain: Domain) -> float:
    """Return a number near `value` that sums of stored integers can take off exactly.

    It is a multiple of 2^-12 of half the width of the bounds, or a whole number for integers.
    """
    low, high = domain.interval or (0.0, 0.0)
    step = ldexp(1.0, frexp(high / 2 - low / 2)[1] - CENTER_BITS)
    if domain.type is Type.INTEGER:
        step = max(step, 1.0)
    return min(max(half_away(value / step) * step, low), high)


def counted_column(column: Column, relation: Relation) -> Column:
    """Return what to count in place of a column: its integers, where the snapshot has them.

    Guarantee: NULL on the same rows; the build proves that.
    """
    found = _stored_column(column, relation)
    return column if found is None else found[0]


def _stored_column(
    column: Column, relation: Relation
) -> tuple[Column, float, tuple[int, int]] | None:
    """Return a column's stored integers, their unit and their proven ends, or None."""
    for scan in protected_scans(relation):
        if scan.source != column.source:
            continue
        domain = next((c.domain for c in scan.columns if c.name == column.name), None)
        if domain is None:
            return None
        unit, ends = stored_unit(domain), stored_ends(domain)
        if unit is None or ends is None:
            return None
        name = GRID_NAME.format(column.name) if has_grid_column(domain) else column.name
        kept = integer(ends[0], ends[1], column.domain.nullable)
        return Column(column.source, name, kept, column.per_unit), unit, ends
    return None


def stored_grid(
    argument: Expression, relation: Relation, center: float, step: float, scale: float
) -> Grid | None:
    """Return the grid of a sum over stored integers, or None where there are none that fit.

    `step` is the coarsest step that the noise `scale` allows; both are in the column's own unit.

    Guarantee: the step is never coarser than `step`. Each row that is not NULL counts
    `integer * multiple - center` steps, which lies from `low` to `high`: the integer lies within
    the ends that the build proved for the column, or is clamped to `ends` by the statement.
    """
    wanted = argument.domain.interval
    found = _stored_column(argument, relation) if isinstance(argument, Column) else None
    if found is None or wanted is None:
        return None
    column, unit, proven = found
    low, high = _integers(wanted, unit)
    if unit != 1.0 and not high - low >= UNITS_MIN:
        return None
    step = min(step, unit)
    multiple, taken = unit / step, center / step
    if not (taken.is_integer() and scale / step <= SCALE_MAX):
        return None
    whole, off = int(multiple), int(taken)
    ends = None if low <= proven[0] else low, None if proven[1] <= high else high
    grid = Grid(step, low * whole - off, high * whole - off, Stored(column, whole, off, ends))
    return grid if 0 < grid.largest < GRID_MAX else None
