"""A SQL dialect comes in; the ledger's tables and all that it says to them go out."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    bindparam,
    insert,
    select,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.schema import CreateIndex, CreateTable

from engine.ledger_rows import TEXTS
from engine.ledger_settling import SETTLES
from engine.ledger_store import Statement, Store

__all__ = ["Statements", "answers_table", "charges_table", "ledger_table", "make_tables"]

_tables = MetaData()

ledger_table = Table(
    "discreet_ledger",
    _tables,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("format", Integer, nullable=False),
    Column("ledger_id", Text, nullable=False),
    Column("created", Text, nullable=False),
    Column("epsilon_total", Text, nullable=False),
    Column("delta_total", Text, nullable=False),
    Column("filter_json", Text, nullable=False),
    Column("genesis", Text, nullable=False),
)

charges_table = Table(
    "discreet_charges",
    _tables,
    Column(
        "seq",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=False,
    ),
    *(Column(name, Text, nullable=False) for name in TEXTS),
)
Index("discreet_charges_by_analyst", charges_table.c.analyst, charges_table.c.seq)

answers_table = Table(
    "discreet_answers",
    _tables,
    Column("key", Text, nullable=False),
    Column("data_version", Text, nullable=False),
    Column("charge_seq", ForeignKey("discreet_charges.seq"), nullable=False),
    Column("deviation", Float(53), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    PrimaryKeyConstraint("key", "data_version", "charge_seq"),
)

# A guard against accidents with a database browser; the hash chain is the guard against the rest.
_SQLITE_GUARDS = tuple(
    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, 'rows of {table} are never edited'); END"
    for table in ("discreet_ledger", "discreet_charges")
    for verb in ("UPDATE", "DELETE")
)


class Statements:
    """The ledger's statements in one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        charges = charges_table.c
        most = bindparam("most", type_=BigInteger)
        upwards = select(charges_table).order_by(charges.seq)
        downwards = select(charges_table).order_by(charges.seq.desc())
        of_analyst = downwards.where(charges.analyst == bindparam("analyst"))
        settles = charges.events_json.startswith(SETTLES, autoescape=True)
        ways = {
            "identity": select(ledger_table),
            "lock": select(ledger_table.c.id).with_for_update(),
            "head": downwards.limit(1),
            "newest": downwards.where(~settles).limit(most),
            "newest_of": of_analyst.limit(most),
            "charges_of": of_analyst.where(~settles).limit(most),
            "settlements": upwards.where(charges.seq > bindparam("after")).where(settles),
            "row": select(charges_table).where(charges.seq == bindparam("seq")),
            "after": upwards.where(charges.seq > bindparam("after")).limit(most),
            "at": select(charges.hash).where(charges.seq == bindparam("seq")),
        }
        compiled = {name: Statement(way, dialect) for name, way in ways.items()}
        self.identity, self.lock = compiled["identity"], compiled["lock"]
        self.at, self.after = compiled["at"], compiled["after"]
        self.head, self.newest, self.newest_of = (
            compiled[name] for name in ("head", "newest", "newest_of")
        )
        self.charges_of, self.settlements, self.row = (
            compiled[name] for name in ("charges_of", "settlements", "row")
        )
        self.insert = Statement(insert(charges_table), dialect)
        self.insert_identity = Statement(insert(ledger_table), dialect)


def make_tables(store: Store, cursor: DBAPICursor) -> None:
    """Make the tables, their indexes and their guards, in a transaction of the caller's."""
    for table in _tables.sorted_tables:
        Statement(CreateTable(table), store.dialect).run(cursor, {})
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            Statement(CreateIndex(index), store.dialect).run(cursor, {})
    for guard in _SQLITE_GUARDS if store.is_sqlite else ():
        cursor.execute(guard)
