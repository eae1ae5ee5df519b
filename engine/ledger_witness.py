"""The newest charge comes in; a small file elsewhere remembers it against restored backups."""

from __future__ import annotations

import os
import re
from pathlib import Path

from engine.errors import LedgerError

__all__ = ["flush", "last_witnessed", "tell"]

_WITNESSED = re.compile(rb"^([0-9a-f]{32}) (\d+) ([0-9a-f]{64})$", re.MULTILINE)


def last_witnessed(witness: Path, where: str) -> tuple[str, int, str] | None:
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


def tell(witness: Path, ledger_id: str, seq: int, digest: str) -> None:
    """Append a charge to the witness; it is told after the commit, so it is never early."""
    line = f"\n{ledger_id} {seq} {digest}\n".encode()
    file = os.open(witness, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def flush(witness: Path) -> None:
    """Wait until the disk has all that the witness was told."""
    with open(witness, "rb") as file:
        os.fsync(file.fileno())
