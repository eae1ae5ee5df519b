"""A paid plan in, exact integers out: the only reader of private rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.database import run as run_statement
from planner.bounded_sql import SELECTION, SPREAD_OUT, statements
from planner.emit import GivenValues
from planner.narrowing import Key
from planner.price import NoisePlan, PricedRelease

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from engine.ledger import Ledger, Receipt


@dataclass(frozen=True, slots=True)
class Exact:
    """The exact numbers of one release. Private: it has no text form and never leaves.

    `columns` maps a measure's place (or SELECTION) to its value per group; a group that is
    missing counts zero.
    """

    columns: Mapping[int, Mapping[Key, Any]] = field(repr=False)


_MADE_HERE = object()


@dataclass(frozen=True, slots=True)
class Reader:
    """Runs the statements of one paid plan, release by release.

    Guarantee: one is made by `open_reader` for a receipt that pays for exactly this plan on
    exactly this data version and is used up by it, or by `open_unpaid` for insecure testing.
    """

    plan: NoisePlan
    database: DuckDBPyConnection = field(repr=False)
    made_by: object = field(repr=False)

    def __post_init__(self) -> None:
        if self.made_by is not _MADE_HERE:
            raise TypeError("a Reader is made by open_reader, against a receipt")

    def run(self, release: PricedRelease, wanted: frozenset[str], given: GivenValues) -> Exact:
        """Run one release's statements as far as the `wanted` answers need them.

        `given` holds released answers that the statements use as constants.
        """
        columns: dict[int, dict[Key, Any]] = {}
        keys = len(release.bounded.release.keys)
        for statement in statements(release.bounded, release.grids, given):
            if not any(_column(release, place) in wanted for place in statement.places):
                continue
            answer = run_statement(self.database, statement.sql)
            if _is_spread_out(release, statement.places[0]):
                columns[statement.places[0]] = _bins(answer.rows, keys)
                continue
            for offset, place in enumerate(statement.places):
                columns[place] = {
                    tuple(row[:keys]): row[keys + offset] or 0 for row in answer.rows
                }
        return Exact(columns)


def open_reader(
    plan: NoisePlan, receipt: Receipt, ledger: Ledger, database: DuckDBPyConnection,
    data_version: str,
) -> Reader:
    """Use up a receipt and return the reader it pays for."""
    ledger.redeem(receipt, plan_hash=plan.plan_hash, data_version=data_version)
    return Reader(plan, database, _MADE_HERE)


def open_unpaid(
    plan: NoisePlan, database: DuckDBPyConnection, *, insecure_testing: bool
) -> Reader:
    """Return a reader nobody paid for, on an engine opened for insecure testing only."""
    if insecure_testing is not True:
        raise PermissionError("rows are read against a receipt; there is none")
    return Reader(plan, database, _MADE_HERE)


def _is_spread_out(release: PricedRelease, place: int) -> bool:
    return place != SELECTION and (
        release.measures[place].bounded.measure.aggregate in SPREAD_OUT
    )


def _bins(rows: list[tuple[Any, ...]], keys: int) -> dict[Key, dict[Any, int]]:
    """Gather the counts of each group's bins."""
    found: dict[Key, dict[Any, int]] = {}
    for row in rows:
        found.setdefault(tuple(row[:keys]), {})[row[keys]] = row[keys + 1]
    return found


def _column(release: PricedRelease, place: int) -> str:
    if place == SELECTION and release.selection is not None:
        return release.selection.key
    return release.measures[place].key
