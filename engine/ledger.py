"""The durable budget: a priced request comes in; its receipt goes out when the charge is on disk.

One database file (or one PostgreSQL database) holds the filter that decides, every charge ever
made, and the kept answers (`engine.answers`). Rows are only ever added. Each charge carries the
running sums and the hash of the row before it, so a decision reads two rows and `verify` can
replay everything. A later correction, if there ever is one, is a new row, never an edit.

**The budget is for ever.** The filter is stored when the ledger is made and never changes: what
was spent under one budget was promised to the patients under it, and no later wish of a data
steward can take that back. A new budget means a new deployment, over new patients.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import InitVar, dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakValueDictionary

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
    create_engine,
    func,
    insert,
    inspect,
    or_,
    select,
)
from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql import ClauseElement

from engine.errors import GLOBAL_BUDGET, Broken, LedgerError, OverBudget
from mechanisms.filter import Filter
from mechanisms.loss import DELTA_PLACES, PrivacyLoss

__all__ = ["Charge", "Ledger", "Receipt", "Statement", "Store", "answers_table", "charges_table"]

FORMAT = 1
LOCK_SECONDS = 60
VERIFY_ROWS = 1000

_MADE_BY_CHARGE = object()
# Sums of losses stay exact in PrivacyLoss's 120 digits when no loss is longer than this.
_LARGEST_EXPONENT = 30
_EXACT = Context(prec=200)

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

# Amounts are decimal text: exact, the same in every database, and readable by eye.
_AMOUNTS = ("epsilon", "delta", "rdp", "quoted_delta")
_TEXTS = (
    "time",
    "analyst",
    *_AMOUNTS,
    "events_json",
    "sql",
    "sql_hash",
    "plan_hash",
    "policy_hash",
    "data_version",
    *(f"total_{name}" for name in _AMOUNTS),
    *(f"analyst_{name}" for name in _AMOUNTS),
    "previous_hash",
    "hash",
)
_COLUMNS = ("seq", *_TEXTS)
_ANALYST = _COLUMNS.index("analyst")
_LOSS, _TOTAL, _OWN = (_COLUMNS.index(f"{of}epsilon") for of in ("", "total_", "analyst_"))

charges_table = Table(
    "discreet_charges",
    _tables,
    Column(
        "seq",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=False,
    ),
    *(Column(name, Text, nullable=False) for name in _TEXTS),
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

_REMEDIES = (
    ("locked", "Another program holds the file: close it (a database browser?) and try again."),
    ("readonly", "Make the file and its folder writable for this user."),
    ("not a database", "Point `ledger:` at a Discreet ledger, or at a file not made yet."),
    ("malformed", "Restore the newest backup and open it with its witness; a new file is no cure."),
    ("full", "Free space on that disk and try again; unanswered requests may stand charged."),
    ("unable to open", "Make the file and its folder readable and writable for this user."),
)
_DEFAULT_REMEDY = "Look after the disk, its permissions and the database, and try again."


@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True)
class Receipt:
    """Proof that a charge is on disk, for one run of one plan on one data version.

    Guarantee: only `Ledger.charge` makes one, after its commit; it cannot be constructed, copied
    by `dataclasses.replace` or pickled elsewhere, and `Ledger.redeem` takes each one once.
    """

    seq: int
    loss: PrivacyLoss
    data_version: str
    plan_hash: str
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _MADE_BY_CHARGE:
            raise TypeError("a Receipt is made by Ledger.charge only; charge the plan to get one")

    def __reduce_ex__(self, protocol: object) -> str | tuple[Any, ...]:
        raise TypeError("a Receipt cannot be copied or pickled; it pays for one run, here")


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One row of the ledger: what was paid for, by whom, and the sums after it."""

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


class Ledger:
    """The one writer of the budget.

    Guarantee: whatever `charge` has acknowledged, taken together, is admitted by the stored
    filter, over all threads, processes and restarts that use this database; and it stays
    recorded through any crash.
    """

    def __init__(
        self, store: Store, identity: _Identity, rule: Filter, witness: Path | None
    ) -> None:
        self._store = store
        self._identity = identity
        self._filter = rule
        self._witness = witness
        self._sql = _Statements(store.dialect)
        self._seen = (0, identity.genesis)

    @classmethod
    def open(
        cls,
        where: str | Path,
        epsilon_total: Decimal,
        delta_total: Decimal,
        *,
        witness: str | Path | None = None,
    ) -> Ledger:
        """Open the ledger at a path or database URL, or make it if nothing is there.

        Everything is verified first. Raises LedgerError, naming the path, the problem and the
        remedy, when the file cannot be used, was made for another budget, does not verify, or is
        behind its `witness`: a small file elsewhere that remembers the newest charge. Put the
        witness where a restored backup of the ledger does not overwrite it. It is appended to
        without an fsync of its own, so a power cut may leave it some charges late, never early.

        Guarantee: the rule that decides is the one stored when the ledger was made. A changed
        budget in the policy is an error, never a new rule: see the top of this file.
        """
        _check_budget(epsilon_total, delta_total)
        store = Store(where, durable=True)
        try:
            identity = _find_or_make(store, epsilon_total, delta_total)
            ledger = cls(
                store, identity, _rule(store, identity), None if witness is None else Path(witness)
            )
            ledger.verify()
            ledger._meet_witness()
        except BaseException:
            store.close()
            raise
        return ledger

    @property
    def filter(self) -> Filter:
        """The stopping rule, fixed when the ledger was made; prices need its order."""
        return self._filter

    @property
    def store(self) -> Store:
        """Where the ledger lives, for `engine.answers`."""
        return self._store

    def charge(
        self,
        loss: PrivacyLoss,
        *,
        analyst: str,
        quota: Decimal | None,
        events_json: str,
        sql: str,
        plan_hash: str,
        policy_hash: str,
        data_version: str,
    ) -> Receipt:
        """Pay for a plan before it reads anything; `analyst` is "" when the policy names none.

        `quota` caps the analyst's own sum of epsilon, below the global budget. A zero loss is
        admitted and recorded like any other.

        Raises OverBudget (nothing is charged), ValueError for a loss that is no loss, and
        LedgerError when the database fails: then the charge may stand or not, and nothing may run.

        Guarantee: a receipt is returned only after the commit is fsynced, and the sums that the
        filter saw when it decided are those of all charges committed before it: reading,
        deciding and inserting are one transaction under the database's write lock.
        """
        _check_loss(loss)
        _check_quota(analyst, quota)
        facts = {
            "analyst": analyst,
            "events_json": events_json,
            "sql": sql,
            "plan_hash": plan_hash,
            "policy_hash": policy_hash,
            "data_version": data_version,
        }
        for name, text in facts.items():
            _check_text(name, text)
        with self._store.alone() as session:
            with session.transaction() as cursor:
                row = self._decide(cursor, loss, quota, facts)
                self._sql.insert.run(cursor, row)
            self._seen = (row["seq"], row["hash"])
            self._tell_witness(*self._seen)
            receipt = Receipt(
                seq=row["seq"],
                loss=loss,
                data_version=data_version,
                plan_hash=plan_hash,
                made_by=_MADE_BY_CHARGE,
            )
            session.receipts[receipt.seq] = receipt
        return receipt

    def redeem(self, receipt: Receipt, *, plan_hash: str, data_version: str) -> None:
        """Use a receipt up; execution calls this before it reads any private row.

        Guarantee: returns at most once for each charge, in the process that charged it, and only
        for the plan and the data version that were paid. Anything else is Broken: running a paid
        plan twice with fresh noise would be a second loss for one payment.
        """
        session = self._store.session()
        with session.lock:
            known = session.receipts.get(receipt.seq)
            if known is not receipt or (receipt.plan_hash, receipt.data_version) != (
                plan_hash,
                data_version,
            ):
                raise Broken
            del session.receipts[receipt.seq]

    def spent(self, analyst: str | None = None) -> PrivacyLoss:
        """Return what was spent by everybody, or by one analyst."""
        if analyst is None:
            return _total(self._rows(self._sql.head, {}))
        return _analyst_total(self._rows(self._sql.head_of, {"analyst": analyst}))

    def left(self, analyst: str | None = None, quota: Decimal | None = None) -> PrivacyLoss:
        """Return what is left for everybody, or for one analyst under that quota."""
        left = self._left(self.spent())
        if analyst is None or quota is None:
            return left
        _check_quota(analyst, quota)
        return _under_quota(left, self.spent(analyst), quota)

    def history(self, limit: int | None = None, analyst: str | None = None) -> tuple[Charge, ...]:
        """Return the newest `limit` charges (all by default), oldest first."""
        if limit is not None and not limit >= 0:
            raise ValueError(f"limit must be 0 or more, got {limit!r}")
        most = 2**62 if limit is None else limit
        if analyst is None:
            rows = self._rows(self._sql.newest, {"most": most})
        else:
            rows = self._rows(self._sql.newest_of, {"most": most, "analyst": analyst})
        return tuple(_charge(row) for row in reversed(rows))

    def head(self) -> tuple[int, str]:
        """Return the number and the hash of the newest charge; (0, genesis) before the first."""
        return self._head_of(self._rows(self._sql.head, {}))

    def verify(self) -> int:
        """Replay the ledger and return how many charges it has.

        Guarantee: passes only if the filter is the stored one, the charges are numbered without
        gaps, every hash, every sum and every loss is exact, and the filter admits every prefix.
        Raises LedgerError that names the first charge for which this fails. What it cannot see:
        newest charges missing altogether, which is what the witness is for.
        """
        replay = _Replay(self._filter, self._identity.genesis)
        if _genesis(self._store.read(self._sql.identity, {})[0]) != self._identity.genesis:
            raise self._damaged("its first row, which holds the budget, was changed")
        while rows := self._rows_after(replay.seq):
            for row in rows:
                problem = replay.problem(row)
                if problem is not None:
                    raise self._damaged(f"charge {replay.seq + 1} {problem}")
        self._store.check_pages()
        return replay.seq

    def close(self) -> None:
        """Close this process's connection."""
        if self._witness is not None and self._witness.exists():
            with self._store.plain_errors(), open(self._witness, "rb") as file:
                os.fsync(file.fileno())
        self._store.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _decide(
        self, cursor: DBAPICursor, loss: PrivacyLoss, quota: Decimal | None, facts: dict[str, str]
    ) -> dict[str, Any]:
        """Return the row to insert, or raise OverBudget; runs under the write lock.

        Guarantee: nothing else in the program decides whether a loss may be spent.
        """
        if not self._store.is_sqlite:
            self._sql.lock.run(cursor, {})
            cursor.fetchall()
        head, mine = self._newest_two(cursor, facts["analyst"])
        spent, own = _total(head), _analyst_total(mine)
        if not self._filter.admits(spent, loss):
            raise OverBudget(loss, self._left(spent), GLOBAL_BUDGET)
        total, own_total = spent + loss, own + loss
        if quota is not None and not own_total.exact_epsilon <= quota:
            left = _under_quota(self._left(spent), own, quota)
            raise OverBudget(loss, left, f"analyst {facts['analyst']}")
        seq, previous_hash = self._head_of(head)
        if seq < self._seen[0] or (seq == self._seen[0] and previous_hash != self._seen[1]):
            raise self._behind(f"charge {self._seen[0]} was in it and now is not")
        row: dict[str, Any] = {
            "seq": seq + 1,
            "time": datetime.now(UTC).isoformat(timespec="microseconds"),
            "sql_hash": _sha256(facts["sql"]),
            "previous_hash": previous_hash,
            **facts,
            **_amounts("", loss),
            **_amounts("total_", total),
            **_amounts("analyst_", own_total),
        }
        row["hash"] = _hash(tuple(row[name] for name in _COLUMNS[:-1]))
        return row

    def _left(self, spent: PrivacyLoss) -> PrivacyLoss:
        """Return what the open rails have left; a closed rail has nothing, whatever its sums."""
        left = self._filter.left(spent)
        if not self._filter.rail_a_holds(spent):
            left = PrivacyLoss(Decimal(0), Decimal(0), left.exact_rdp)
        if not self._filter.rail_b_holds(spent):
            left = PrivacyLoss(left.exact_epsilon, left.exact_delta, Decimal(0))
        return left

    def _newest_two(
        self, cursor: DBAPICursor, analyst: str
    ) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """Return the newest row of all and of the analyst, each as a list of none or one."""
        self._sql.newest_two.run(cursor, {"analyst": analyst})
        rows = self._sound(list(cursor.fetchall()))
        return rows[:1], [row for row in rows if row[_ANALYST] == analyst][:1]

    def _rows(self, statement: Statement, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return self._sound(self._store.read(statement, values))

    def _rows_after(self, seq: int) -> list[tuple[Any, ...]]:
        rows = self._store.read(self._sql.after, {"after": seq, "most": VERIFY_ROWS})
        return [tuple(row) for row in rows]

    def _sound(self, rows: list[Any]) -> list[tuple[Any, ...]]:
        """Return the rows if each still has its own hash: no decision rests on a damaged row."""
        for row in rows:
            if _hash(row[:-1]) != row[-1]:
                raise self._damaged(f"charge {row[0]} does not match its hash")
        return [tuple(row) for row in rows]

    def _head_of(self, head: list[tuple[Any, ...]]) -> tuple[int, str]:
        return (head[0][0], head[0][-1]) if head else (0, self._identity.genesis)

    def _damaged(self, problem: str) -> LedgerError:
        return LedgerError(
            self._store.where,
            problem,
            "The file was changed from outside or the disk is failing: restore the newest backup "
            "that verifies, and open it with its witness.",
        )

    def _behind(self, problem: str) -> LedgerError:
        return LedgerError(
            self._store.where,
            f"older charges than were already made: {problem}",
            "A restored backup would forget spent budget: bring back the newest ledger. If it is "
            "lost, these patients' budget counts as spent.",
        )

    def _meet_witness(self) -> None:
        """Compare with the witness, then tell it the head.

        Guarantee: passes only if the charge that the witness saw last is in this ledger.
        """
        if self._witness is None:
            return
        with self._store.alone() as session:
            last = _last_witnessed(self._witness, self._store.where)
            if last is not None:
                self._compare(session, *last)
            head = session.read(self._sql.head, {})
            self._tell_witness(*self._head_of([tuple(row) for row in head]))

    def _compare(self, session: Session, ledger_id: str, seq: int, digest: str) -> None:
        if ledger_id != self._identity.ledger_id:
            raise LedgerError(
                self._store.where,
                f"its witness {self._witness} belongs to another ledger",
                "Give each ledger its own witness file; if this ledger was made anew in place of "
                "a lost one, these patients' budget counts as spent.",
            )
        rows = session.read(self._sql.at, {"seq": seq})
        found = rows[0][0] if rows else self._identity.genesis if seq == 0 else None
        if found != digest:
            raise self._behind(f"its witness {self._witness} saw charge {seq} as {digest[:12]}...")

    def _tell_witness(self, seq: int, digest: str) -> None:
        """Append the head to the witness, after the commit: the witness is never early."""
        if self._witness is None:
            return
        line = f"\n{self._identity.ledger_id} {seq} {digest}\n".encode()
        file = os.open(self._witness, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.write(file, line)
        finally:
            os.close(file)


class Store:
    """The database of one ledger, reached over one connection for each process that uses it."""

    def __init__(self, where: str | Path, *, durable: bool) -> None:
        self.location = where
        self.url = _url(where)
        self.where = self.url.render_as_string(hide_password=True)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.path: Path | None = None
        self._lock_file = ""
        self._durable = durable
        if self.is_sqlite:
            # Resolved, so that a later chdir or a symbolic link does not lead to another lock.
            self.path = Path(self.url.database or "").resolve()
            self.where = str(self.path)
            _check_file(self.path)
            self._lock_file = str(_lock_path(self.path))
        arguments: dict[str, Any] = (
            {"timeout": LOCK_SECONDS, "check_same_thread": False, "isolation_level": None}
            if self.is_sqlite
            else {}
        )
        try:
            self._engine = create_engine(self.url, poolclass=NullPool, connect_args=arguments)
        except (ImportError, NoSuchModuleError) as error:
            raise LedgerError(
                self.where, f"no driver for it is installed ({error})", "Install the driver."
            ) from error
        # Keyed by process: a connection that came through a fork is neither used nor closed here.
        self._sessions: dict[int, Session] = {}
        self._closed = False
        self._new_session()

    @property
    def dialect(self) -> Dialect:
        return self._engine.dialect

    def session(self) -> Session:
        """Return this process's connection, opening it after a fork.

        Guarantee: never one that another process uses, nor one to a file that has been replaced.
        """
        if self._closed:
            raise LedgerError(self.where, "it is closed", "Open it again.")
        session = self._sessions.get(os.getpid())
        if session is None:
            session = self._new_session()
        if session.file != self._file():
            raise LedgerError(
                self.where,
                "the file was removed or replaced while in use",
                "Put the newest ledger back and restart every process that uses it.",
            )
        return session

    @contextmanager
    def alone(self) -> Iterator[Session]:
        """Hold the ledger against all threads and processes, in the order in which they came.

        SQLite's own write lock decides who may write. The file lock round it is there for
        fairness: SQLite's waiters sleep and retry, and some wait for seconds. It is taken on a
        file opened for this one time, so that a forked child cannot inherit and keep it.
        """
        session = self.session()
        with session.lock, self.plain_errors():
            if self.path is None:
                yield session
                return
            file = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield session
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)
                os.close(file)

    def read(self, statement: Statement, values: Mapping[str, Any]) -> list[Any]:
        """Return all rows of one SELECT."""
        session = self.session()
        with session.lock, self.plain_errors():
            return session.read(statement, values)

    def check_pages(self) -> None:
        """Let SQLite check its own file: a damaged index would hide an analyst's charges."""
        if not self.is_sqlite:
            return
        session = self.session()
        with session.lock, self.plain_errors():
            problem = session.pragma("integrity_check(1)")
        if problem != "ok":
            raise LedgerError(self.where, f"the file is malformed: {problem}", _REMEDIES[3][1])

    def table_names(self) -> list[str]:
        with self.plain_errors():
            return inspect(self._engine).get_table_names()

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        """Turn what drivers and the operating system raise into LedgerError."""
        try:
            yield
        except (DBAPIError, OSError, self._engine.dialect.loaded_dbapi.Error) as error:
            raise self._plain(error) from error

    def close(self) -> None:
        """Close this process's connection; those of other processes are left alone."""
        self._closed = True
        session = self._sessions.pop(os.getpid(), None)
        if session is not None:
            with session.lock:
                session.connection.close()

    def _plain(self, error: BaseException) -> LedgerError:
        cause = error.orig if isinstance(error, DBAPIError) else error
        text = str(cause).strip()
        remedy = next((r for word, r in _REMEDIES if word in text.lower()), _DEFAULT_REMEDY)
        return LedgerError(self.where, f"the database does not work ({text})", remedy)

    def _new_session(self) -> Session:
        with self.plain_errors():
            proxy = self._engine.raw_connection()
            connection = proxy.dbapi_connection
            assert connection is not None
            proxy.detach()
            try:
                session = Session(connection, is_sqlite=self.is_sqlite)
                session.prepare(durable=self._durable)
                session.file = self._file()
            except BaseException:
                connection.close()
                raise
        # Two threads may come here after a fork; the first one's connection is used by both.
        kept = self._sessions.setdefault(os.getpid(), session)
        if kept is not session:
            connection.close()
        return kept

    def _file(self) -> tuple[int, int] | None:
        if self.path is None:
            return None
        try:
            found = os.stat(self.where)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


class Session:
    """One process's connection, with the lock that its threads share."""

    __slots__ = ("connection", "file", "is_sqlite", "lock", "receipts")

    def __init__(self, connection: DBAPIConnection, *, is_sqlite: bool) -> None:
        self.connection = connection
        self.is_sqlite = is_sqlite
        self.file: tuple[int, int] | None = None
        self.lock = threading.RLock()
        # Receipts not yet redeemed. Weak: one that its owner dropped can no longer be redeemed.
        self.receipts: WeakValueDictionary[int, Receipt] = WeakValueDictionary()

    def prepare(self, *, durable: bool) -> None:
        """Make commits durable: an acknowledged commit survives a power cut if `durable`."""
        if not self.is_sqlite:
            self._execute(f"SET synchronous_commit = {'on' if durable else 'off'}")
            self.connection.commit()
            return
        level = 2 if durable else 1
        self._execute(f"PRAGMA synchronous = {level}")
        self._execute("PRAGMA fullfsync = ON")
        self._execute("PRAGMA foreign_keys = ON")
        mode, found = self.pragma("journal_mode = WAL"), self.pragma("synchronous")
        if (mode, found) != ("wal", level):
            raise OSError(f"journal mode is {mode!r} and synchronous {found!r} on this file system")

    @contextmanager
    def transaction(self) -> Iterator[DBAPICursor]:
        """Run one write transaction: committed on a normal end, undone on any exception."""
        connection = self.connection
        cursor = connection.cursor()
        try:
            if self.is_sqlite:
                cursor.execute("BEGIN IMMEDIATE")
            yield cursor
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
        finally:
            cursor.close()

    def read(self, statement: Statement, values: Mapping[str, Any]) -> list[Any]:
        cursor = self.connection.cursor()
        try:
            statement.run(cursor, values)
            return list(cursor.fetchall())
        finally:
            cursor.close()
            if not self.is_sqlite:
                self.connection.rollback()

    def pragma(self, text: str) -> Any:
        cursor = self._execute(f"PRAGMA {text}")
        row = cursor.fetchone()
        return None if row is None else row[0]

    def _execute(self, text: str) -> DBAPICursor:
        cursor = self.connection.cursor()
        cursor.execute(text)
        return cursor


class Statement:
    """A SQLAlchemy statement compiled once: Core's execution layer costs as much as an fsync."""

    __slots__ = ("_constants", "_names", "_text")

    def __init__(self, element: ClauseElement, dialect: Dialect) -> None:
        compiled = element.compile(dialect=dialect)
        self._text = str(compiled)
        params = getattr(compiled, "params", None) or {}
        self._constants = {name: value for name, value in params.items() if value is not None}
        names = getattr(compiled, "positiontup", None)
        self._names: tuple[str, ...] | None = None if names is None else tuple(names)

    def run(self, cursor: DBAPICursor, values: Mapping[str, Any]) -> None:
        if self._constants:
            values = {**self._constants, **values}
        if self._names is None:
            cursor.execute(self._text, dict(values))
        else:
            cursor.execute(self._text, tuple([values[name] for name in self._names]))


class _Statements:
    """The ledger's statements in one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        charges = charges_table.c
        other = charges_table.alias("other").c
        mine = charges_table.alias("mine").c
        newest = select(func.max(other.seq)).scalar_subquery()
        newest_mine = (
            select(func.max(mine.seq)).where(mine.analyst == bindparam("analyst")).scalar_subquery()
        )
        most = bindparam("most", type_=Integer)
        upwards = select(charges_table).order_by(charges.seq)
        downwards = select(charges_table).order_by(charges.seq.desc())
        of_analyst = downwards.where(charges.analyst == bindparam("analyst"))
        ways = {
            "identity": select(ledger_table),
            "lock": select(ledger_table.c.id).with_for_update(),
            "newest_two": downwards.where(or_(charges.seq == newest, charges.seq == newest_mine)),
            "head": downwards.limit(1),
            "head_of": of_analyst.limit(1),
            "newest": downwards.limit(most),
            "newest_of": of_analyst.limit(most),
            "after": upwards.where(charges.seq > bindparam("after")).limit(most),
            "at": select(charges.hash).where(charges.seq == bindparam("seq")),
        }
        compiled = {name: Statement(way, dialect) for name, way in ways.items()}
        self.identity, self.lock = compiled["identity"], compiled["lock"]
        self.newest_two, self.at, self.after = (
            compiled[name] for name in ("newest_two", "at", "after")
        )
        self.head, self.head_of = compiled["head"], compiled["head_of"]
        self.newest, self.newest_of = compiled["newest"], compiled["newest_of"]
        self.insert = Statement(insert(charges_table), dialect)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Identity:
    """What was fixed when the ledger was made."""

    ledger_id: str
    epsilon_total: Decimal
    delta_total: Decimal
    filter_json: str
    genesis: str


class _Replay:
    """Recomputes a ledger from its facts alone, row by row."""

    def __init__(self, rule: Filter, genesis: str) -> None:
        self.seq = 0
        self._filter = rule
        self._hash = genesis
        self._total = PrivacyLoss.zero()
        self._own: dict[str, PrivacyLoss] = {}

    def problem(self, row: tuple[Any, ...]) -> str | None:
        """Return what is wrong with the next row, or None after adding it."""
        if row[0] != self.seq + 1:
            return f"is missing: the next one found is {row[0]}"
        if _hash(row[:-1]) != row[-1]:
            return "does not match its hash"
        try:
            charge = _charge(row)
            _check_loss(charge.loss)
        except (ValueError, ArithmeticError) as error:
            return f"has no valid loss: {error}"
        if charge.previous_hash != self._hash:
            return "does not continue the chain of hashes"
        if charge.sql_hash != _sha256(charge.sql):
            return "has the hash of another SQL text"
        own = self._own.get(charge.analyst, PrivacyLoss.zero()) + charge.loss
        total = self._total + charge.loss
        if (charge.total, charge.analyst_total) != (total, own):
            return "has sums that are not the sums of the losses"
        if not self._filter.admits(self._total, charge.loss):
            return "is more than the budget allows"
        self.seq, self._hash, self._total = charge.seq, charge.hash, total
        self._own[charge.analyst] = own
        return None


def _find_or_make(store: Store, epsilon_total: Decimal, delta_total: Decimal) -> _Identity:
    """Return the stored identity, making the tables if this is a new ledger.

    Guarantee: never makes a ledger where one was made before and is now missing.
    """
    with store.alone() as session:
        names = store.table_names()
        mark = _mark(store)
        if ledger_table.name not in names:
            _check_is_new(store, names, mark)
            identity = _make(store, session, epsilon_total, delta_total)
        else:
            rows = session.read(Statement(select(ledger_table), store.dialect), {})
            identity = _read_identity(store, rows)
            _check_same_budget(store, identity, epsilon_total, delta_total)
        if mark not in ("", identity.ledger_id):
            raise LedgerError(
                store.where,
                f"another ledger was here before (the lock file beside it says {mark[:12]}...)",
                "Bring the former ledger back. If the exchange is wanted, and the patients are "
                f"others, remove {_lock_path(Path(store.where))}.",
            )
        if mark == "" and store.path is not None:
            _lock_path(store.path).write_text(identity.ledger_id)
        return identity


def _make(
    store: Store, session: Session, epsilon_total: Decimal, delta_total: Decimal
) -> _Identity:
    values: dict[str, Any] = {
        "id": 1,
        "format": FORMAT,
        "ledger_id": secrets.token_hex(16),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "epsilon_total": f"{epsilon_total:f}",
        "delta_total": f"{delta_total:f}",
        "filter_json": Filter.for_budget(epsilon_total, delta_total).to_json(),
    }
    values["genesis"] = _genesis((*values.values(), ""))
    with session.transaction() as cursor:
        for table in _tables.sorted_tables:
            Statement(CreateTable(table), store.dialect).run(cursor, {})
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                Statement(CreateIndex(index), store.dialect).run(cursor, {})
        for guard in _SQLITE_GUARDS if store.is_sqlite else ():
            cursor.execute(guard)
        Statement(insert(ledger_table), store.dialect).run(cursor, values)
    if store.path is not None:
        folder = os.open(store.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return _read_identity(store, [tuple(values.values())])


def _read_identity(store: Store, rows: list[Any]) -> _Identity:
    if len(rows) != 1 or rows[0][1] != FORMAT or _genesis(rows[0]) != rows[0][7]:
        raise LedgerError(
            store.where,
            "its first row, which holds the budget, is missing, changed or of another version",
            "Restore the newest backup that verifies, or install the version that made it.",
        )
    row = rows[0]
    return _Identity(
        ledger_id=row[2],
        epsilon_total=Decimal(row[4]),
        delta_total=Decimal(row[5]),
        filter_json=row[6],
        genesis=row[7],
    )


def _rule(store: Store, identity: _Identity) -> Filter:
    try:
        return Filter.from_json(identity.filter_json)
    except ValueError as error:
        raise LedgerError(
            store.where,
            f"its filter cannot be read ({error})",
            "Install the version of Discreet that made it.",
        ) from error


def _check_is_new(store: Store, names: list[str], mark: str) -> None:
    if mark:
        raise LedgerError(
            store.where,
            "the ledger that was made here is gone",
            "Restore it: a new one would forget what was spent. If the patients are others, "
            f"remove {_lock_path(Path(store.where))} to begin anew.",
        )
    if names and store.is_sqlite:
        raise LedgerError(
            store.where,
            f"it is a database with tables of its own ({', '.join(sorted(names)[:3])})",
            "Point `ledger:` at a Discreet ledger, or at a file not made yet.",
        )


def _check_same_budget(
    store: Store, identity: _Identity, epsilon_total: Decimal, delta_total: Decimal
) -> None:
    if (identity.epsilon_total, identity.delta_total) != (epsilon_total, delta_total):
        raise LedgerError(
            store.where,
            f"it was made for epsilon {identity.epsilon_total}, delta {identity.delta_total}, and "
            f"the policy now says epsilon {epsilon_total}, delta {delta_total}",
            "A budget is promised once and never changes: put the first numbers back. A new "
            "budget needs a new deployment, over new patients.",
        )


def _check_file(path: Path) -> None:
    """Refuse, in plain words, a place where no ledger can be read, made or written."""
    where, folder = str(path), path.parent
    if path.name in ("", ":memory:") or where.startswith("file:"):
        raise LedgerError(where, "a ledger in memory would forget", "Name a file on disk.")
    if not folder.is_dir():
        raise LedgerError(
            where, f"the folder {folder} does not exist", "Make the folder, or correct `ledger:`."
        )
    if path.is_dir():
        raise LedgerError(where, "it is a folder", "Name a file inside it.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise LedgerError(
            where, f"the folder {folder} cannot be written", "Make it writable for this user."
        )
    if not path.exists():
        return
    if not os.access(path, os.R_OK | os.W_OK):
        raise LedgerError(
            where, "the file is read-only for this user", "Make it readable and writable."
        )
    with open(path, "rb") as file:
        start = file.read(16)
    if start not in (b"", b"SQLite format 3\0"):
        raise LedgerError(where, "the file is not a database", _REMEDIES[2][1])


def _check_budget(epsilon_total: Decimal, delta_total: Decimal) -> None:
    for name, value in (("epsilon_total", epsilon_total), ("delta_total", delta_total)):
        if not isinstance(value, Decimal):
            raise TypeError(f"{name} must be a Decimal, got {value!r}; Decimal('1e-6') would do")
    if not (epsilon_total.is_finite() and epsilon_total > 0):
        raise ValueError(f"epsilon_total must be above 0 and finite, got {epsilon_total}")
    if not (delta_total.is_finite() and 0 <= delta_total < 1):
        raise ValueError(f"delta_total must be at least 0 and below 1, got {delta_total}")


def _check_loss(loss: PrivacyLoss) -> None:
    """Refuse what is not a loss.

    Guarantee: every loss that passes is finite, not negative, and short enough for exact sums.
    """
    amounts = (loss.exact_epsilon, loss.exact_delta, loss.exact_rdp, loss.exact_quoted_delta)
    for name, value in zip(_AMOUNTS, amounts, strict=True):
        if not (isinstance(value, Decimal) and value.is_finite() and not value.is_signed()):
            raise ValueError(f"{name} of a charge must be finite and from 0 up, got {value!r}")
        exponent = value.as_tuple().exponent
        if not (
            isinstance(exponent, int)
            and -DELTA_PLACES <= exponent <= _LARGEST_EXPONENT
            and value.adjusted() <= _LARGEST_EXPONENT
        ):
            raise ValueError(
                f"{name} of a charge must have at most {DELTA_PLACES} decimals and be below "
                f"1e{_LARGEST_EXPONENT}, got {value!r}; PrivacyLoss.of rounds so"
            )


def _check_quota(analyst: str, quota: Decimal | None) -> None:
    if quota is None:
        return
    if analyst == "":
        raise ValueError("a quota needs the name of the analyst it limits")
    if not (isinstance(quota, Decimal) and quota.is_finite() and quota >= 0):
        raise ValueError(f"the quota of {analyst} must be finite and from 0 up, got {quota!r}")


def _check_text(name: str, text: str) -> None:
    """Refuse text that some database would store as other text."""
    if not isinstance(text, str) or "\0" in text:
        raise ValueError(f"{name} of a charge must be text without zero bytes, got {text!r}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name} of a charge is not valid Unicode: {text!r}") from None


def _under_quota(left: PrivacyLoss, own: PrivacyLoss, quota: Decimal) -> PrivacyLoss:
    """Return what an analyst may still spend: the global rest, with epsilon cut to the quota."""
    rest = max(Decimal(0), _EXACT.subtract(quota, own.exact_epsilon))
    return PrivacyLoss(min(left.exact_epsilon, rest), left.exact_delta, left.exact_rdp)


def _url(where: str | Path) -> URL:
    if isinstance(where, str) and "://" in where:
        try:
            return make_url(where)
        except ArgumentError as error:
            raise LedgerError(where, "no such database URL", "Give a path or a URL.") from error
    return URL.create("sqlite", database=str(where))


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _mark(store: Store) -> str:
    """Return the id of the ledger once made here, as the lock file beside it remembers it."""
    return "" if store.path is None else _lock_path(store.path).read_text().strip()


_WITNESSED = re.compile(rb"^([0-9a-f]{32}) (\d+) ([0-9a-f]{64})$", re.MULTILINE)


def _last_witnessed(witness: Path, where: str) -> tuple[str, int, str] | None:
    """Return the ledger's id and the charge that the witness saw last; None if there is no file."""
    if not witness.exists():
        return None
    with open(witness, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 4096))
        lines = _WITNESSED.findall(file.read())
    if not lines:
        raise LedgerError(
            where,
            f"its witness {witness} says nothing readable",
            "Restore the witness, or name another file if you know that this ledger is the newest.",
        )
    ledger_id, seq, digest = lines[-1]
    return ledger_id.decode(), int(seq), digest.decode()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _hash(facts: tuple[Any, ...]) -> str:
    """Hash a row's other columns: a list in JSON, so that no two different rows look alike."""
    return _sha256(json.dumps(["discreet charge", FORMAT, *facts], separators=(",", ":")))


def _genesis(row: tuple[Any, ...]) -> str:
    return _sha256(json.dumps(["discreet ledger", *row[:7]], separators=(",", ":")))


def _amounts(prefix: str, loss: PrivacyLoss) -> dict[str, str]:
    return {
        f"{prefix}epsilon": f"{loss.exact_epsilon:f}",
        f"{prefix}delta": f"{loss.exact_delta:f}",
        f"{prefix}rdp": f"{loss.exact_rdp:f}",
        f"{prefix}quoted_delta": f"{loss.exact_quoted_delta:f}",
    }


def _loss(row: tuple[Any, ...], start: int) -> PrivacyLoss:
    return PrivacyLoss(*map(Decimal, row[start : start + len(_AMOUNTS)]))


def _total(rows: list[tuple[Any, ...]]) -> PrivacyLoss:
    return _loss(rows[0], _TOTAL) if rows else PrivacyLoss.zero()


def _analyst_total(rows: list[tuple[Any, ...]]) -> PrivacyLoss:
    return _loss(rows[0], _OWN) if rows else PrivacyLoss.zero()


def _charge(row: tuple[Any, ...]) -> Charge:
    others = {
        name: value
        for name, value in zip(_COLUMNS, row, strict=True)
        if not name.endswith(_AMOUNTS)
    }
    return Charge(
        loss=_loss(row, _LOSS),
        total=_loss(row, _TOTAL),
        analyst_total=_loss(row, _OWN),
        **others,
    )
