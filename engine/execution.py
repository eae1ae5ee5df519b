"""A paid plan in, exact integers out: the only reader of private rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.database import run as run_statement
from engine.ledger import Ledger, Receipt
from planner.bounded_sql import SELECTION
from planner.narrowing import Key
from planner.price import NoisePlan, PricedRelease

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Exact:
    """The exact numbers of one release. Private: it has no text form and never leaves.

    `columns` maps a measure's place (or SELECTION) to its value per group; a group that is
    missing counts zero.
    """

    columns: Mapping[int, Mapping[Key, Any]] = field(repr=False)


def run(
    plan: NoisePlan, wanted: frozenset[str], receipt: Receipt, ledger: Ledger,
    database: DuckDBPyConnection, data_version: str,
) -> tuple[Exact, ...]:
    """Run a plan's statements as far as the `wanted` answers need them.

    Guarantee: the receipt is used up first, and it pays for exactly this plan on exactly this
    data version; without it no row is read.
    """
    ledger.redeem(receipt, plan_hash=plan.plan_hash, data_version=data_version)
    return tuple(_run_release(release, wanted, database) for release in plan.releases)


def run_unpaid(
    plan: NoisePlan, database: DuckDBPyConnection, *, insecure_testing: bool
) -> tuple[Exact, ...]:
    """Run a plan without paying, on an engine opened for insecure testing only."""
    if insecure_testing is not True:
        raise PermissionError("rows are read against a receipt; there is none")
    wanted = frozenset(c.key for r in plan.releases for c in (*r.measures, r.selection) if c)
    return tuple(_run_release(release, wanted, database) for release in plan.releases)


def _run_release(
    release: PricedRelease, wanted: frozenset[str], database: DuckDBPyConnection
) -> Exact:
    columns: dict[int, dict[Key, Any]] = {}
    keys = len(release.bounded.release.keys)
    for statement in release.statements:
        needed = [
            place for place in statement.places
            if _column(release, place) in wanted
        ]
        if not needed:
            continue
        answer = run_statement(database, statement.sql)
        for offset, place in enumerate(statement.places):
            columns[place] = {
                tuple(row[:keys]): row[keys + offset] or 0 for row in answer.rows
            }
    return Exact(columns)


def _column(release: PricedRelease, place: int) -> str:
    if place == SELECTION and release.selection is not None:
        return release.selection.key
    return release.measures[place].key
