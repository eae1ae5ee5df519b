"""A store and a budget come in; the identity of the ledger that is there, or is made, goes out."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from engine.errors import LedgerError
from engine.ledger_log import flush_folder
from engine.ledger_rows import FORMAT, genesis_hash, is_whole_first_row
from engine.ledger_store import Session, Store, lock_path
from engine.ledger_tables import Statements, ledger_table, make_tables
from mechanisms.filter import Filter

__all__ = ["Identity", "find_or_make", "stored_filter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What was fixed when the ledger was made."""

    ledger_id: str
    epsilon_total: Decimal
    delta_total: Decimal
    filter_json: str
    genesis: str


def find_or_make(
    store: Store, sql: Statements, epsilon_total: Decimal, delta_total: Decimal
) -> Identity:
    """Return the stored identity, making the tables if this is a new ledger.

    Guarantee: of several processes that come at once, one makes the ledger. In a file, none is
    made where one was before and is now missing: the lock file beside it remembers. For a database
    URL there is no such file, so only a witness can notice that the tables were dropped.
    """
    with store.alone() as session, session.making():
        names = store.table_names()
        mark = _mark(store)
        if ledger_table.name not in names:
            _check_is_new(store, names, mark)
            identity = _make(store, session, sql, epsilon_total, delta_total)
        else:
            identity = _read_identity(store, session.read(sql.identity, {}))
            _check_same_budget(store, identity, epsilon_total, delta_total)
        if mark not in ("", identity.ledger_id):
            raise LedgerError(
                store.where,
                f"another ledger was here before (the lock file beside it says {mark[:12]}...)",
                "Bring the former ledger back. If the exchange is wanted, and the patients are "
                f"others, remove {lock_path(Path(store.where))}.",
            )
        if mark == "" and store.path is not None:
            _set_mark(store.path, identity.ledger_id)
        return identity


def stored_filter(store: Store, identity: Identity) -> Filter:
    """Return the rule that was stored when the ledger was made."""
    try:
        return Filter.from_json(identity.filter_json)
    except ValueError as error:
        raise LedgerError(
            store.where,
            f"its filter cannot be read ({error})",
            "Install the version of Discreet that made it.",
        ) from error


def _make(
    store: Store, session: Session, sql: Statements, epsilon_total: Decimal, delta_total: Decimal
) -> Identity:
    values: dict[str, Any] = {
        "id": 1,
        "format": FORMAT,
        "ledger_id": secrets.token_hex(16),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "epsilon_total": f"{epsilon_total:f}",
        "delta_total": f"{delta_total:f}",
        "filter_json": Filter.for_budget(epsilon_total, delta_total).to_json(),
    }
    values["genesis"] = genesis_hash((*values.values(), ""))
    with session.transaction() as cursor:
        make_tables(store, cursor)
        sql.insert_identity.run(cursor, values)
    session.flush(session.written)
    return _read_identity(store, [tuple(values.values())])


def _read_identity(store: Store, rows: list[Any]) -> Identity:
    if len(rows) != 1 or not is_whole_first_row(rows[0]):
        raise LedgerError(
            store.where,
            "its first row, which holds the budget, is missing, changed or of another version",
            "Restore the newest backup that verifies, or install the version that made it.",
        )
    row = rows[0]
    return Identity(
        ledger_id=row[2],
        epsilon_total=Decimal(row[4]),
        delta_total=Decimal(row[5]),
        filter_json=row[6],
        genesis=row[7],
    )


def _check_is_new(store: Store, names: list[str], mark: str) -> None:
    if mark:
        raise LedgerError(
            store.where,
            "the ledger that was made here is gone",
            "Restore it: a new one would forget what was spent. If the patients are others, "
            f"remove {lock_path(Path(store.where))} to begin anew.",
        )
    if names and store.is_sqlite:
        raise LedgerError(
            store.where,
            f"it is a database with tables of its own ({', '.join(sorted(names)[:3])})",
            "Point `ledger:` at a Discreet ledger, or at a file not made yet.",
        )


def _check_same_budget(
    store: Store, identity: Identity, epsilon_total: Decimal, delta_total: Decimal
) -> None:
    if (identity.epsilon_total, identity.delta_total) != (epsilon_total, delta_total):
        raise LedgerError(
            store.where,
            f"it was made for epsilon {identity.epsilon_total}, delta {identity.delta_total}, and "
            f"the policy now says epsilon {epsilon_total}, delta {delta_total}",
            "A budget is promised once and never changes: put the first numbers back. A new "
            "budget needs a new deployment, over new patients.",
        )


def _mark(store: Store) -> str:
    """Return the id of the ledger once made here, as the lock file beside it remembers it."""
    return "" if store.path is None else lock_path(store.path).read_text().strip()


def _set_mark(path: Path, ledger_id: str) -> None:
    """Write the mark and wait until the disk has it, and the folder's entries for both files."""
    with open(lock_path(path), "w") as file:
        file.write(ledger_id)
        file.flush()
        os.fsync(file.fileno())
    flush_folder(path.parent)
