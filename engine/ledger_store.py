"""A path or database URL comes in; one locked connection for each process goes out.

The door to SQLAlchemy, to the drivers under it and to the lock file. It knows no table: the ledger
and the kept answers (`engine.answers`) each open a `Store` of their own on the same database.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakValueDictionary

from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import URL, Dialect, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool
from sqlalchemy.sql import ClauseElement

from engine.errors import LedgerError
from engine.ledger_log import Log

__all__ = ["Session", "Statement", "Store", "lock_path", "resolved"]

LOCK_SECONDS = 60
# A charge has the lock for some 50 microseconds: so long it is worth asking again at once.
SPIN_SECONDS = 0.0005

# PostgreSQL's advisory locks are numbers: this one is held while the tables are made.
_MAKING = int.from_bytes(b"discreet", "big")

_REMEDIES = (
    ("locked", "Another program holds the file: close it (a database browser?) and try again."),
    ("readonly", "Make the file and its folder writable for this user."),
    ("not a database", "Point `ledger:` at a Discreet ledger, or at a file not made yet."),
    ("malformed", "Restore the newest backup and open it with its witness; a new file is no cure."),
    ("was removed while", "Restart every process that uses the ledger."),
    ("full", "Free space on that disk and try again; unanswered requests may stand charged."),
    ("unable to open", "Make the file and its folder readable and writable for this user."),
    ("permission denied", "Make the file and its folders readable and writable for this user."),
)
_NO_DATABASE = "file is not a database"
_DEFAULT_REMEDY = "Look after the disk, its permissions and the database, and try again."


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
            self.location = self.path = resolved(self.url.database or "")
            self.where = str(self.path)
            self.url = self.url.set(database=self.where)
            self._lock_file = str(lock_path(self.path))
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
        self.plain_errors = _PlainErrors(self.where, self._engine.dialect.loaded_dbapi.Error)
        if self.path is not None:
            with self.plain_errors:
                _check_file(self.path)
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
        try:
            is_there = session.file == self._file()
        except OSError:
            is_there = False
        if is_there:
            return session
        raise LedgerError(
            self.where,
            "the file was removed or replaced while in use",
            "Put the newest ledger back and restart every process that uses it.",
        )

    @contextmanager
    def alone(self) -> Iterator[Session]:
        """Hold the ledger against all threads and processes, in the order in which they came.

        SQLite's own write lock decides who may write. The file lock round it is there for
        fairness: SQLite's waiters sleep and retry, and some wait for seconds. It is taken on a
        file opened for this one time, so that a forked child cannot inherit and keep it. Who holds
        it for longer than LOCK_SECONDS is stuck: then LedgerError.
        """
        session = self.session()
        with session.lock, self.plain_errors:
            file = self._take_lock()
            try:
                yield session
            finally:
                self._give_lock(file)

    def _take_lock(self) -> int:
        """Return the open lock file once this process has the lock; -1 where there is none."""
        if self.path is None:
            return -1
        file = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            is_taken = _lock(file)
        except BaseException:
            self._give_lock(file)
            raise
        if is_taken:
            return file
        os.close(file)
        raise LedgerError(
            self.where,
            f"its lock file {self._lock_file} is held by another process, for longer than "
            f"{LOCK_SECONDS} seconds",
            "Find the process that has it open (`fuser` names it) and let it go on, or end it; do "
            "not remove the lock file.",
        )

    def _give_lock(self, file: int) -> None:
        if file >= 0:
            fcntl.flock(file, fcntl.LOCK_UN)  # a child may have come to have it too
            os.close(file)

    def read(self, statement: Statement, values: Mapping[str, Any]) -> list[Any]:
        """Return all rows of one SELECT."""
        session = self.session()
        with session.lock, self.plain_errors:
            return session.read(statement, values)

    def check_pages(self) -> None:
        """Let SQLite check its own file: a damaged index would hide an analyst's charges."""
        if not self.is_sqlite:
            return
        session = self.session()
        with session.lock, self.plain_errors:
            problem = session.pragma("integrity_check(1)")
        if problem != "ok":
            raise LedgerError(self.where, f"the file is malformed: {problem}", _REMEDIES[3][1])

    def table_names(self) -> list[str]:
        with self.plain_errors:
            return inspect(self._engine).get_table_names()

    def close(self) -> None:
        """Close this process's connection; those of other processes are left alone.

        Guarantee: it is done under the lock. SQLite's last connection removes the log, and after
        a fork it can be wrong about being the last: so no charge is in that moment committed to a
        log that has its name still and will not be read again.
        """
        self._closed = True
        session = self._sessions.pop(os.getpid(), None)
        if session is None:
            return
        with session.lock:
            file = -1
            try:
                with suppress(OSError, LedgerError):  # then it is closed without
                    file = self._take_lock()
                session.close()
            finally:
                self._give_lock(file)

    def _new_session(self) -> Session:
        with self.plain_errors:
            proxy = self._engine.raw_connection()
            connection = proxy.dbapi_connection
            assert connection is not None
            proxy.detach()
            session = Session(connection, is_sqlite=self.is_sqlite)
            try:
                session.prepare(self.path, durable=self._durable)
                session.file = self._file()
            except BaseException:
                session.close()
                raise
        # Two threads may come here after a fork; the first one's connection is used by both.
        kept = self._sessions.setdefault(os.getpid(), session)
        if kept is not session:
            session.close()
        return kept

    def _file(self) -> tuple[int, int] | None:
        if self.path is None:
            return None
        found = os.stat(self.where)
        return found.st_dev, found.st_ino


class _PlainErrors:
    """Turns what drivers and the operating system raise into LedgerError."""

    __slots__ = ("_kinds", "_where")

    def __init__(self, where: str, driver: type[Exception]) -> None:
        self._where = where
        self._kinds = (DBAPIError, OSError, driver)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if not isinstance(error, self._kinds):
            return
        cause = error.orig if isinstance(error, DBAPIError) else error
        text = str(cause).strip()
        remedy = next((r for word, r in _REMEDIES if word in text.lower()), _DEFAULT_REMEDY)
        problem = (
            f"the {text}" if text == _NO_DATABASE else f"the database does not work ({text})"
        )
        raise LedgerError(self._where, problem, remedy) from error


class _Transaction:
    """One write transaction: committed on a normal end, undone on any exception."""

    __slots__ = ("_cursor", "_session")

    def __init__(self, session: Session) -> None:
        self._session = session

    def __enter__(self) -> DBAPICursor:
        session = self._session
        self._cursor = session.connection.cursor()
        session.begin(self._cursor)
        return self._cursor

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._session.commit(self._cursor)
            else:
                self._session.connection.rollback()
        finally:
            self._cursor.close()


class Session:
    """One process's connection, with the lock that its threads share."""

    __slots__ = ("_log", "connection", "file", "is_sqlite", "lock", "receipts", "reservations")

    def __init__(self, connection: DBAPIConnection, *, is_sqlite: bool) -> None:
        self.connection = connection
        self.is_sqlite = is_sqlite
        self._log: Log | None = None
        self.file: tuple[int, int] | None = None
        self.lock = threading.RLock()
        # Receipts not yet redeemed. Weak: one that its owner dropped can no longer be redeemed.
        self.receipts: WeakValueDictionary[int, object] = WeakValueDictionary()
        # Those redeemed that may still be settled.
        self.reservations: WeakValueDictionary[int, object] = WeakValueDictionary()

    def prepare(self, path: Path | None, *, durable: bool) -> None:
        """Make commits durable: if `durable`, a flushed commit survives a power cut."""
        if path is None:
            self._execute(f"SET synchronous_commit = {'on' if durable else 'off'}")
            self.connection.commit()
            return
        self._execute("PRAGMA synchronous = NORMAL")
        self._execute("PRAGMA fullfsync = ON")
        self._execute("PRAGMA foreign_keys = ON")
        mode, found = self.pragma("journal_mode = WAL"), self.pragma("synchronous")
        if (mode, found) != ("wal", 1):
            raise OSError(f"journal mode is {mode!r} and synchronous {found!r} on this file system")
        if durable:
            self.pragma("schema_version")  # the first look into the file makes the log
            self._log = Log(path.with_name(path.name + "-wal"))

    @property
    def written(self) -> int:
        """How many commits were made here that `flush` can wait for; under the lock."""
        return 0 if self._log is None else self._log.written

    def flush(self, commit: int) -> None:
        """Wait until the disk has this commit; call it without the lock, so that others go on.

        In PostgreSQL the commit has waited already.
        """
        if self._log is not None:
            self._log.flush(commit)

    def close(self) -> None:
        self.connection.close()
        if self._log is not None:
            self._log.close()

    def transaction(self) -> _Transaction:
        """Run one write transaction: committed on a normal end, undone on any exception.

        Committed is not yet durable: that is what `flush` waits for.
        """
        return _Transaction(self)

    def begin(self, cursor: DBAPICursor) -> None:
        """Begin a write transaction; PostgreSQL begins one with its first statement."""
        if not self.is_sqlite:
            return
        if self._log is not None and self._log.has_failed:
            self._begin_log_anew(self._log)
        cursor.execute("BEGIN IMMEDIATE")

    def commit(self, cursor: DBAPICursor) -> None:
        """End a write transaction, or undo it where that fails."""
        try:
            if self.is_sqlite:
                cursor.execute("COMMIT")
            else:
                self.connection.commit()
        except BaseException:
            self.connection.rollback()
            raise
        if self._log is not None:
            self._log.written += 1

    def _begin_log_anew(self, log: Log) -> None:
        """After a failed flush: let SQLite copy the log into the database file, flush that, and
        empty the log, so that nothing hangs on what the disk did not take."""
        log.check_name()
        is_busy = self.pragma("wal_checkpoint(TRUNCATE)")
        if is_busy:
            raise OSError("the disk did not take an earlier charge, and who reads the file now "
                          "keeps it from being written again")
        log.begun_anew()

    @contextmanager
    def making(self) -> Iterator[None]:
        """Hold a PostgreSQL database against all who would make tables too.

        In a file `Store.alone` is enough; two CREATE TABLE at once are an error in PostgreSQL.
        """
        if self.is_sqlite:
            yield
            return
        self._execute(f"SELECT pg_advisory_lock({_MAKING})")
        self.connection.commit()
        try:
            yield
        finally:
            self._execute(f"SELECT pg_advisory_unlock({_MAKING})")
            self.connection.commit()

    def read(self, statement: Statement, values: Mapping[str, Any]) -> list[Any]:
        """Return all rows of one SELECT, outside of any transaction."""
        with self.reading() as cursor:
            return statement.rows(cursor, values)

    @contextmanager
    def reading(self) -> Iterator[DBAPICursor]:
        """Run SELECTs outside of any transaction."""
        cursor = self.connection.cursor()
        try:
            yield cursor
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

    __slots__ = ("_constants", "_names", "_order", "_text")

    def __init__(self, element: ClauseElement, dialect: Dialect) -> None:
        compiled = element.compile(dialect=dialect)
        self._text = str(compiled)
        params = getattr(compiled, "params", None) or {}
        self._constants = {name: value for name, value in params.items() if value is not None}
        names = getattr(compiled, "positiontup", None)
        self._names: tuple[str, ...] | None = None if names is None else tuple(names)
        self._order = tuple(params) if names is None else tuple(names)

    def add(self, cursor: DBAPICursor, row: tuple[Any, ...]) -> None:
        """Run an INSERT of a whole row, in the order of the table's columns."""
        cursor.execute(
            self._text, row if self._names is not None else dict(zip(self._order, row, strict=True))
        )

    def run(self, cursor: DBAPICursor, values: Mapping[str, Any]) -> None:
        if self._constants:
            values = {**self._constants, **values}
        if self._names is None:
            cursor.execute(self._text, dict(values))
        else:
            cursor.execute(self._text, tuple([values[name] for name in self._names]))

    def rows(self, cursor: DBAPICursor, values: Mapping[str, Any]) -> list[Any]:
        """Run a SELECT and return all its rows."""
        self.run(cursor, values)
        return list(cursor.fetchall())


def lock_path(path: Path) -> Path:
    """Return the lock file beside a ledger; it also remembers which ledger was made there."""
    return path.with_name(path.name + ".lock")


def resolved(where: str | Path) -> Path:
    """Return the file that a path means now: no later chdir makes it another one."""
    try:
        return Path(where).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise LedgerError(str(where), f"no such path can be ({error})", "Correct it.") from error


def _lock(file: int) -> bool:
    """Take the lock of an open file; False if it is not to be had within LOCK_SECONDS.

    A thread waits in the kernel's queue, since flock knows no time limit. Asking again and again
    instead loses the order of arrival: the slowest charges then take several times as long.
    """
    patience = time.monotonic() + SPIN_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            return True
        if time.monotonic() > patience:
            break
        os.sched_yield()
    waiting = os.dup(file)  # the same lock: it is the thread's to keep open, whenever its turn is
    taken, given_up = threading.Event(), threading.Event()

    def wait() -> None:
        try:
            fcntl.flock(waiting, fcntl.LOCK_EX)
            taken.set()
            if given_up.is_set():
                fcntl.flock(waiting, fcntl.LOCK_UN)
        finally:
            os.close(waiting)

    threading.Thread(target=wait, daemon=True).start()
    try:
        taken.wait(LOCK_SECONDS)
    finally:
        if not taken.is_set():
            given_up.set()
    return not given_up.is_set()


def _url(where: str | Path) -> URL:
    if isinstance(where, str) and "://" in where:
        try:
            return make_url(where)
        except ArgumentError as error:
            raise LedgerError(where, "no such database URL", "Give a path or a URL.") from error
    return URL.create("sqlite", database=str(where))


def _check_file(path: Path) -> None:
    """Refuse, in plain words, a place where no ledger can be read, made or written.

    Guarantee: the file itself is not opened. POSIX locks are a process's own, and closing any
    descriptor of a file takes them all away, also those of SQLite's other connections here. Then
    another process believes that it is the last one and removes the log which these still write.
    """
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
