"""Paid training runs on disk: a run's key before its first row, its state on the way, its end.

Guarantee: a charge buys one answer. All randomness of a run comes from its key, which is drawn
once and written (for this user only) before the first row is read, so whatever is done again
after a crash is done alike; and a run that has ended gives its stored model and reads no row.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.descent import State

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where one run lives: `key`, `state.npz` while it runs, `model/` once it has ended."""

    path: Path

    @property
    def model(self) -> Path:
        """The folder of the finished model."""
        return self.path / "model"

    @property
    def is_finished(self) -> bool:
        """Whether the run has ended and its model is stored."""
        return (self.path / "finished").exists()

    def finish(self) -> None:
        """Mark the run as ended; its state is no longer needed."""
        (self.path / "finished").touch(mode=0o600)
        (self.path / "state.npz").unlink(missing_ok=True)

    def key(self) -> bytes:
        """Return the run's key; it is drawn when it is first asked for.

        Guarantee: it is on disk before it is used, and never drawn twice for one run.
        """
        place = self.path / "key"
        if not place.exists():
            draft = self.path / f"key.{os.getpid()}"
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            draft.rename(place)
        found = place.read_bytes()
        if len(found) != KEY_BYTES:
            raise OSError("the run's key is damaged")
        return found

    def save(self, state: State) -> None:
        """Write the state of the run, atomically."""
        import numpy as np

        draft = self.path / "state.draft.npz"
        np.savez(draft, step=state.step, parameters=state.parameters, first=state.first,
                 second=state.second, average=state.average)
        draft.chmod(0o600)
        draft.rename(self.path / "state.npz")

    def load(self) -> State | None:
        """Return the state that was saved last, or None."""
        import numpy as np

        from models.descent import State

        place = self.path / "state.npz"
        if not place.exists():
            return None
        with np.load(place, allow_pickle=False) as found:
            return State(int(found["step"]), found["parameters"], found["first"],
                         found["second"], found["average"])

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the run's lock, so that two processes do not go on with it at once."""
        with open(os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def run_folder(directory: Path, stem: str, seq: int) -> RunFolder:
    """Return the folder of the run that charge `seq` paid, made if it is not there."""
    path = directory / f"{stem}.snapshot-runs" / str(seq)
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return RunFolder(path)
