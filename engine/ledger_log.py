"""Commits to a ledger's write-ahead log come in; they go out once the disk has them.

SQLite would wait for the disk inside its commit, while everybody else waits for the lock. Here
the commit only writes (`synchronous = NORMAL`), the lock is given up, and then the log is flushed:
threads of a process share one flush, and processes flush side by side.

Why that keeps the promise of `synchronous = FULL` (SQLite's src/wal.c: sqlite3WalFrames,
walCheckpoint, walRestartLog; sqlite.org/wal.html, "Performance Considerations"). FULL differs from
NORMAL by one flush of the log at the end of a commit, which is made here:

- All processes append to one file, and a flush covers all that was written to it before, by
  anybody. Frames are read back up to the first damaged one, so an acknowledged charge brings
  every charge before it: none is decided on sums that a power cut takes away behind it.
- A checkpoint flushes the log, copies it into the database file and flushes that before it says
  so; only then the next writer begins the log anew, and flushes its new header before its
  frames. So a commit whose log was begun anew before its flush is on disk in the other file.
- The log is removed by who closes the last connection, after a checkpoint. Who waits here has a
  connection; if the file went away all the same, the flush says so.
- SQLite flushes the folder only where the same connection made the log and first flushed it;
  here everybody flushes the folder once.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from pathlib import Path

__all__ = ["Log", "flush_file", "flush_folder"]


class Log:
    """The log of one process's connection.

    `written` counts the commits of this connection, and is changed only under its lock.

    Guarantee: `flush(n)` returns only after a flush that succeeded, of the file that has the name
    of the log, began after the n-th commit. One that fails acknowledges nobody: what the system
    could not write it may forget, and a second attempt then succeeds without it. So nothing more
    is acknowledged until `begun_anew` says that SQLite has written everything elsewhere.
    """

    def __init__(self, path: Path) -> None:
        # Opened before the first commit: Linux tells a failed write to files opened before it.
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        flush_folder(path.parent)
        self._turn = threading.Lock()
        self._flushed = 0
        self.written = 0
        self.has_failed = False

    def flush(self, commit: int) -> None:
        """Wait until the disk has this commit. Raises OSError where it may not have it."""
        with self._turn:
            if self.has_failed:
                raise OSError("the disk did not take an earlier charge")
            if commit <= self._flushed:
                return
            written = self.written
            try:
                flush_file(self._file)
                self.check_name()
            except OSError:
                self.has_failed = True
                raise
            self._flushed = written

    def check_name(self) -> None:
        """Raise OSError if the file was removed: others write another log by now."""
        if os.fstat(self._file).st_nlink == 0:
            raise OSError("its write-ahead log was removed while in use")

    def begun_anew(self) -> None:
        """Go on after a failure: the caller has everything in the database file, on disk."""
        with self._turn:
            self.has_failed = False

    def close(self) -> None:
        """Close the file; who still waits for a flush is not acknowledged."""
        with self._turn:
            os.close(self._file)
            self.has_failed = True


def flush_file(file: int) -> None:
    """Wait until the disk has the bytes of a file, and its size, as SQLite does it."""
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
        except OSError:  # not on this file system
            os.fsync(file)
    else:
        os.fdatasync(file)


def flush_folder(folder: Path) -> None:
    """Wait until the disk has a folder's entries."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
