"""Work in; the same work, ending at a whole multiple of a fixed time, out.

How long a question takes depends on the rows. With a slot of, say, half a second, an analyst who
watches the clock sees how many slots it took and no more: for questions that fit one slot,
nothing. What is left is told apart in docs/security.md: work that spills into another slot, and
the fraction of a millisecond by which a sleeping process wakes up late.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil, isfinite

SLOT_MAX = 3600.0


def check_slot(seconds: float | None) -> float | None:
    """Return a slot's length if it is one. Raises ValueError."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not (
        isfinite(seconds) and 0 < seconds <= SLOT_MAX
    ):
        raise ValueError(f"time_slot is a number of seconds above 0 and up to {SLOT_MAX:g}, got "
                         f"{seconds!r}; 0.5 would do")
    return float(seconds)


@contextmanager
def whole_slots(seconds: float | None) -> Iterator[None]:
    """Let what is done inside end at a whole number of slots, however it ends.

    Guarantee: an answer, a refusal and a failure alike are held back until the next multiple of
    `seconds` after the beginning. None: nothing is held back.
    """
    if seconds is None:
        yield
        return
    started = time.monotonic()
    try:
        yield
    finally:
        took = time.monotonic() - started
        slots = max(1, ceil(took / seconds))
        time.sleep(max(0.0, started + slots * seconds - time.monotonic()))


__all__ = ["check_slot", "whole_slots"]
