"""The newest charge comes in; a small file elsewhere remembers it against restored backups."""

from __future__ import annotations

import os
import re
from pathlib import Path

from engine.errors import LedgerError

__all__ = ["Witness"]

_WITNESSED = re.compile(rb"^([0-9a-f]{32}) (\d+) ([0-9a-f]{64})$", re.MULTILINE)
_AT_ONCE = 1 << 20


class Witness:
    """One process's view of the witness of one ledger; used under the ledger's lock.

    Guarantee: the highest charge that was ever read in the file counts, not the last one, and it
    is not forgotten when the file is lost or put back.
    """

    def __init__(self, path: Path, ledger_id: str, where: str) -> None:
        self.path = path
        self._ledger_id = ledger_id
        self._where = where
        self._file: tuple[int, int] | None = None
        self._read_to = 0
        self._seq = -1
        self._hashes: set[str] = set()

    def highest(self) -> list[tuple[int, str]]:
        """Return the highest charge that it saw, once for each hash that it saw it with.

        Nothing if there is no file yet. Only what was appended since the last look is read.
        """
        if not self.path.exists():
            return self._found()
        with open(self.path, "rb") as file:
            found = os.fstat(file.fileno())
            if self._file != (found.st_dev, found.st_ino) or found.st_size < self._read_to:
                self._file, self._read_to = (found.st_dev, found.st_ino), 0
            file.seek(self._read_to)
            while lines := file.readlines(_AT_ONCE):
                self._add(b"".join(lines))
                # A line without its end is being written, or was torn: it will be read again.
                self._read_to += sum(len(line) for line in lines if line.endswith(b"\n"))
        if not self._hashes:
            raise LedgerError(
                self._where,
                f"its witness {self.path} says nothing readable",
                "Restore the witness, or name another file if you know that this ledger is the "
                "newest.",
            )
        return self._found()

    def tell(self, seq: int, digest: str) -> None:
        """Append a charge; it is told after the commit, so the witness is never early."""
        line = f"\n{self._ledger_id} {seq} {digest}\n".encode()
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def flush(self) -> None:
        """Wait until the disk has all that the witness was told."""
        if self.path.exists():
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())

    def _add(self, lines: bytes) -> None:
        for ledger_id, number, digest in _WITNESSED.findall(lines):
            if ledger_id.decode() != self._ledger_id:
                raise LedgerError(
                    self._where,
                    f"its witness {self.path} belongs to another ledger",
                    "Give each ledger its own witness file; if this ledger was made anew in place "
                    "of a lost one, these patients' budget counts as spent.",
                )
            seq = int(number)
            if seq > self._seq:
                self._seq, self._hashes = seq, set()
            if seq == self._seq:
                self._hashes.add(digest.decode())

    def _found(self) -> list[tuple[int, str]]:
        return [(self._seq, digest) for digest in sorted(self._hashes)]
