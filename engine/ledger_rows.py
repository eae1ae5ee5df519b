"""A row of the ledger comes in; the Charge it stands for and the hash it must have go out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from mechanisms.loss import PrivacyLoss

__all__ = [
    "AMOUNTS", "ANALYST", "COLUMNS", "FORMAT", "TEXTS", "Charge",
    "analyst_total_of", "charge_hash", "charge_of", "genesis_hash", "has_its_hash",
    "is_whole_first_row", "row_of", "sha256", "total_of",
]

FORMAT = 1

# Amounts are decimal text: exact, the same in every database, and readable by eye.
AMOUNTS = ("epsilon", "delta", "rdp", "quoted_delta")
TEXTS = (
    "time",
    "analyst",
    *AMOUNTS,
    "events_json",
    "sql",
    "sql_hash",
    "plan_hash",
    "policy_hash",
    "data_version",
    *(f"total_{name}" for name in AMOUNTS),
    *(f"analyst_{name}" for name in AMOUNTS),
    "previous_hash",
    "hash",
)
COLUMNS = ("seq", *TEXTS)
_PLAIN = {str, int}
_JSON = json.JSONEncoder(separators=(",", ":"))  # json.dumps would make one for each row
ANALYST = COLUMNS.index("analyst")
_LOSS, _TOTAL, _OWN = (COLUMNS.index(f"{of}epsilon") for of in ("", "total_", "analyst_"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One row of the ledger: what was paid for, by whom, and the sums after it.

    `settled` is what a reservation came to cost when it ended at a coarser level than reserved.
    """

    seq: int
    time: str
    analyst: str
    loss: PrivacyLoss
    events_json: str
    sql: str
    sql_hash: str
    plan_hash: str
    policy_hash: str
    data_version: str
    total: PrivacyLoss
    analyst_total: PrivacyLoss
    previous_hash: str
    hash: str
    settled: PrivacyLoss | None = None

    @property
    def cost(self) -> PrivacyLoss:
        """What it costs by now: as charged, or as settled."""
        return self.loss if self.settled is None else self.settled


def charge_of(row: tuple[Any, ...]) -> Charge:
    """Read a row; ValueError or ArithmeticError if an amount in it is no amount."""
    others = {
        name: value
        for name, value in zip(COLUMNS, row, strict=True)
        if not name.endswith(AMOUNTS)
    }
    return Charge(
        loss=_loss(row, _LOSS),
        total=_loss(row, _TOTAL),
        analyst_total=_loss(row, _OWN),
        **others,
    )


def total_of(rows: list[tuple[Any, ...]]) -> PrivacyLoss:
    """Return everybody's sum after the first of these rows; zero if there is none."""
    return _loss(rows[0], _TOTAL) if rows else PrivacyLoss.zero()


def analyst_total_of(rows: list[tuple[Any, ...]]) -> PrivacyLoss:
    """Return the sum of that row's analyst after the first of these rows; zero if there is none."""
    return _loss(rows[0], _OWN) if rows else PrivacyLoss.zero()


def _loss(row: tuple[Any, ...], start: int) -> PrivacyLoss:
    return PrivacyLoss(*map(Decimal, row[start : start + len(AMOUNTS)]))


def row_of(
    newest: tuple[int, str], facts: Mapping[str, str], loss: PrivacyLoss, total: PrivacyLoss,
    own_total: PrivacyLoss,
) -> tuple[Any, ...]:
    """Return the row after the newest one, in the order of COLUMNS, with its hash."""
    row = (
        newest[0] + 1,
        datetime.now(UTC).isoformat(timespec="microseconds"),
        facts["analyst"],
        *_texts(loss),
        facts["events_json"],
        facts["sql"],
        sha256(facts["sql"]),
        facts["plan_hash"],
        facts["policy_hash"],
        facts["data_version"],
        *_texts(total),
        *_texts(own_total),
        newest[1],
    )
    return (*row, charge_hash(row))


def _texts(loss: PrivacyLoss) -> tuple[str, str, str, str]:
    return (
        f"{loss.exact_epsilon:f}", f"{loss.exact_delta:f}", f"{loss.exact_rdp:f}",
        f"{loss.exact_quoted_delta:f}",
    )


def charge_hash(facts: tuple[Any, ...]) -> str:
    """Hash a row's other columns: a list in JSON, so that no two different rows look alike."""
    return sha256(_JSON.encode(["discreet charge", FORMAT, *facts]))


def genesis_hash(row: tuple[Any, ...]) -> str:
    """Hash the ledger's first row, which holds the budget: the chain of charges starts from it."""
    return sha256(_JSON.encode(["discreet ledger", *row[:7]]))


def has_its_hash(row: tuple[Any, ...]) -> bool:
    """Tell whether a charge is as it was hashed; text that a flipped bit made bytes is not."""
    return _is_plain(row) and charge_hash(row[:-1]) == row[-1]


def is_whole_first_row(row: tuple[Any, ...]) -> bool:
    """Tell whether the ledger's first row is as it was hashed, and of this format."""
    return _is_plain(row) and row[1] == FORMAT and genesis_hash(row) == row[7]


def _is_plain(row: tuple[Any, ...]) -> bool:
    return _PLAIN.issuperset(map(type, row))


def sha256(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()
