"""Kept answers: a released answer comes in with its key; asked again, the same answer goes out.

The same question gets the same answer, whoever asks, at no cost: averaging fresh noise away is
not possible, and a dashboard is paid for once. Only released bytes are ever kept here.

Answers live in the ledger's database but on a connection of their own with `synchronous` at
NORMAL: keeping one does not wait for the disk. A power cut may lose the newest answers, which
costs budget when they are asked again, not privacy: their charges were fsynced before. A charge
that commits later makes earlier answers durable too, since both are in one write-ahead log.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.ledger import Ledger

__all__ = ["Answers", "StoredAnswer"]


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A released answer: its question, the standard deviation of its noise, and its bytes.

    `key` is the SHA-256 of the canonical release; `payload` is JSON, never code.
    """

    key: str
    data_version: str
    deviation: float
    payload: bytes
    charge_seq: int

    def __post_init__(self) -> None:
        if not 0 <= self.deviation < float("inf"):
            raise ValueError(
                f"the deviation of an answer must be 0 or more and finite, got {self.deviation!r}"
            )
        if not isinstance(self.payload, bytes):
            raise TypeError(f"a payload must be bytes of JSON, got {type(self.payload).__name__}")


class Answers:
    """The answers kept beside one ledger, for all its processes and threads."""

    def __init__(self, ledger: Ledger) -> None:
        # A lazy door to SQLAlchemy: whoever has a ledger has loaded it.
        from sqlalchemy import Integer, bindparam, select

        from engine.ledger_store import Statement, Store
        from engine.ledger_tables import answers_table, charges_table

        self._store = Store(ledger.store.location, durable=False)
        answers, dialect = answers_table.c, self._store.dialect
        of_key = (
            select(answers_table)
            .where(answers.key == bindparam("key"))
            .where(answers.data_version == bindparam("data_version"))
            .order_by(answers.deviation, answers.charge_seq)
        )
        close_enough = of_key.where(answers.deviation <= bindparam("at_most")).limit(
            bindparam("most", type_=Integer)
        )
        self._all = Statement(of_key, dialect)
        self._best = Statement(close_enough, dialect)
        self._paid = Statement(
            select(charges_table.c.data_version).where(charges_table.c.seq == bindparam("seq")),
            dialect,
        )
        # Only the dialect in use is loaded, so that importing this file is quicker.
        name = "sqlite" if self._store.is_sqlite else "postgresql"
        insert = import_module(f"sqlalchemy.dialects.{name}").insert
        self._insert = Statement(insert(answers_table).on_conflict_do_nothing(), dialect)

    def find(self, key: str, data_version: str) -> tuple[StoredAnswer, ...]:
        """Return every kept answer to this question on this data, the most accurate first."""
        rows = self._store.read(self._all, {"key": key, "data_version": data_version})
        return tuple(_answer(row) for row in rows)

    def find_best(
        self, key: str, data_version: str, at_most_deviation: float
    ) -> StoredAnswer | None:
        """Return the most accurate kept answer if its deviation is at most the asked one.

        Of two equally accurate ones it is the one charged first, so that whoever asks, and
        whenever, sees one answer.
        """
        if not at_most_deviation >= 0:
            raise ValueError(f"at_most_deviation must be 0 or more, got {at_most_deviation!r}")
        asked = {
            "key": key,
            "data_version": data_version,
            "at_most": at_most_deviation,
            "most": 1,
        }
        rows = self._store.read(self._best, asked)
        return _answer(rows[0]) if rows else None

    def keep(self, answer: StoredAnswer) -> None:
        """Keep an answer; keeping it again changes nothing.

        Guarantee: an answer is kept only under a charge that is in the ledger and was made for
        the same data version, and a kept answer is never replaced.
        """
        values = {
            "key": answer.key,
            "data_version": answer.data_version,
            "charge_seq": answer.charge_seq,
            "deviation": float(answer.deviation),
            "payload": answer.payload,
        }
        with self._store.alone() as session, session.transaction() as cursor:
            self._paid.run(cursor, {"seq": answer.charge_seq})
            paid = cursor.fetchone()
            if paid is None or paid[0] != answer.data_version:
                raise ValueError(
                    f"no charge {answer.charge_seq} for data version {answer.data_version!r}: "
                    "charge a release before keeping its answer"
                )
            self._insert.run(cursor, values)

    def close(self) -> None:
        """Close this process's connection."""
        self._store.close()


def _answer(row: Any) -> StoredAnswer:
    return StoredAnswer(
        key=row[0],
        data_version=row[1],
        charge_seq=row[2],
        deviation=row[3],
        payload=bytes(row[4]),
    )
