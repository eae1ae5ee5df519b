"""A paid plan in, exact integers or a training view's rows out: the only reader of private rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from engine.database import run as run_statement
from engine.database import stream
from engine.errors import Broken
from planner.bounded_sql import SELECTION, is_spread_out, statements
from planner.emit import GivenValues
from planner.narrowing import Key
from planner.price import NoisePlan, PricedRelease, adapted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from engine.ledger import Ledger, Receipt


@dataclass(frozen=True, slots=True)
class Exact:
    """The exact numbers of one release. Private: it has no text form and never leaves.

    `columns` maps a measure's place (or SELECTION) to its value per group; a group that is
    missing counts zero. `release` is what was read: the planned release, under the bounds that
    its pilot's answer chose.
    """

    release: PricedRelease
    columns: Mapping[int, Mapping[Key, Any]] = field(repr=False)


_MADE_HERE = object()
ROWS_AT_ONCE = 65_536


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

    def run(self, place: int, known: Mapping[str, tuple[float, ...]], given: GivenValues) -> Exact:
        """Run the statements of the plan's release at `place`, as far as they are not `known`.

        `known` holds released columns by key: those need no reading, and a pilot's choose the
        bounds. `given` holds released answers that the statements use as constants.

        Guarantee: reads nothing but the planned release, or the one that `adapted` makes of it
        and of released numbers, which costs no more.
        """
        release = adapted(self.plan, self.plan.releases[place], known)
        columns: dict[int, dict[Key, Any]] = {}
        keys = len(release.bounded.release.keys)
        for statement in statements(release.bounded, release.grids, given):
            if all(_column(release, place) in known for place in statement.places):
                continue
            answer = run_statement(self.database, statement.sql)
            if _is_spread_out(release, statement.places[0]):
                columns[statement.places[0]] = _bins(answer.rows, keys)
                continue
            for offset, place in enumerate(statement.places):
                columns[place] = {
                    tuple(row[:keys]): row[keys + offset] or 0 for row in answer.rows
                }
        return Exact(release, columns)


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


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reads the rows of one paid training view: the only way by which rows leave the database.

    Guarantee: one is made by `open_rows` for a receipt that pays for exactly this statement and
    run on exactly this data version, by `open_paid_rows` for a run that the ledger already
    holds, or by `open_unpaid_rows` for insecure testing. The rows go to models/ and no further.
    """

    statement: str = field(repr=False)
    database: DuckDBPyConnection = field(repr=False)
    made_by: object = field(repr=False)

    def __post_init__(self) -> None:
        if self.made_by is not _MADE_HERE:
            raise TypeError("a RowReader is made by open_rows, against a receipt")

    def chunks(self) -> Iterator[tuple[Any, ...]]:
        """Yield the columns of the view, ROWS_AT_ONCE rows at a time."""
        return stream(self.database, self.statement, ROWS_AT_ONCE)

    def saying(self, statement: str) -> RowReader:
        """Return the reader of another statement of the same paid run.

        A run that draws its coins after it was paid writes them into its statement.
        """
        return replace(self, statement=statement)


def open_rows(
    statement: str, plan_hash: str, receipt: Receipt, ledger: Ledger,
    database: DuckDBPyConnection, data_version: str,
) -> RowReader:
    """Use up a receipt and return the reader of the rows it pays for."""
    ledger.redeem(receipt, plan_hash=plan_hash, data_version=data_version)
    return RowReader(statement, database, _MADE_HERE)


def open_paid_rows(
    statement: str, plan_hash: str, seq: int, ledger: Ledger, database: DuckDBPyConnection,
    data_version: str,
) -> RowReader:
    """Return a reader for a run that was paid and not finished.

    Guarantee: the ledger holds charge `seq` for exactly this run and data version. The caller
    must go on with the run's own key, so that whatever is drawn again is drawn alike: the same
    charge then never buys two different answers (engine/training_runs.py).
    """
    charges = [c for c in ledger.history() if c.seq == seq]
    if not charges or (charges[0].plan_hash, charges[0].data_version) != (plan_hash, data_version):
        raise Broken
    return RowReader(statement, database, _MADE_HERE)


def open_unpaid_rows(
    statement: str, database: DuckDBPyConnection, *, insecure_testing: bool
) -> RowReader:
    """Return a reader nobody paid for, on an engine opened for insecure testing only."""
    if insecure_testing is not True:
        raise PermissionError("rows are read against a receipt; there is none")
    return RowReader(statement, database, _MADE_HERE)


def _is_spread_out(release: PricedRelease, place: int) -> bool:
    return place != SELECTION and is_spread_out(release.measures[place].bounded)


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
