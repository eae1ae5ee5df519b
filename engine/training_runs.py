"""Paid training runs on disk: a run's key before its first row, its state on the way, its end.

Guarantee: a charge buys one answer. All randomness of a run comes from its key, which is drawn
right after the charge and by nothing else, and written (for this user only) before the first row
is read. So whatever is done again after a crash is done alike; a run that has ended gives its
stored model and reads no row; and a run whose key is lost is over: another key would buy another
model for the same charge, which is what a restored backup of the folder would come to.
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

    @property
    def has_key(self) -> bool:
        """Whether the run's key is there: without it the run cannot go on."""
        return (self.path / "key").exists()

    def finish(self) -> None:
        """Mark the run as ended. With the key its noise could be taken off again: it goes."""
        (self.path / "finished").touch(mode=0o600)
        for left in ("state.npz", "key"):
            (self.path / left).unlink(missing_ok=True)

    def draw_key(self) -> bytes:
        """Draw the run's key and return it: once, by the call that made the charge.

        Guarantee: it is on disk before it is returned.
        """
        draft = self.path / f"key.{os.getpid()}"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self.path / "key")
        return self.key()

    def key(self) -> bytes:
        """Return the run's key. Raises OSError where it is not there or damaged."""
        found = (self.path / "key").read_bytes()
        if len(found) != KEY_BYTES:
            raise OSError("the run's key is damaged")
        return found

    def save(self, state: State) -> None:
        """Write the state of the run, atomically."""
        import numpy as np

        draft = self.path / "state.draft.npz"
        np.savez(draft, step=state.step, parameters=state.parameters, first=state.first,
                 second=state.second, average=state.average, norms=state.norms)
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
                         found["second"], found["average"],
                         found["norms"] if "norms" in found else np.zeros(0))

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
