"""One patient's bit as the difference of two counts, and by a general tracker.

Denning, Denning and Schwartz 1979 (trackers). Either with the whole budget on one patient, where
differential privacy allows e/(1+e) of right guesses and no more, or with every patient's turn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attacks.curators import Curator, Kind, Rows, accuracy, curator
from benchmarks.attacks.reconstruction import DECLARED, people

COUNT = "SELECT COUNT(*) FROM people WHERE "


def _number(rows: Rows | None) -> float | None:
    return None if rows is None else float(rows[0][0])


def difference(asked: Curator, target: int, epsilon: float | None = None) -> float | None:
    """Return COUNT(sick) - COUNT(sick AND NOT target)."""
    whole = _number(asked.ask(COUNT + "sick", epsilon))
    rest = _number(asked.ask(COUNT + f"sick AND code <> {target}", epsilon))
    return None if whole is None or rest is None else whole - rest


def tracked(asked: Curator, target: int, epsilon: float | None = None) -> float | None:
    """Return the same by a tracker T, so that every count is of about half of the patients."""
    half = "code % 2 = 0"
    one = f"(sick AND code = {target})"
    parts = [_number(asked.ask(COUNT + where, epsilon)) for where in (
        f"({one} OR {half})", f"({one} OR NOT {half})", half, f"NOT {half}")]
    if any(part is None for part in parts):
        return None
    a, b, c, d = (float(part) for part in parts if part is not None)
    return a + b - c - d


def one_target(
    kind: Kind, folder: Path, seed: int, *, epsilon: float = 1.0, by_tracker: bool = False,
    direct: bool = False, patients: int = 256,
) -> bool:
    """Spend everything on one patient; return whether the guess is right."""
    rng = np.random.default_rng(seed)
    rows = people(rng, patients)
    place = int(rng.integers(patients))
    target, truth = int(rows["code"][place]), bool(rows["sick"][place])
    with curator(kind, folder, rows, DECLARED, epsilon=epsilon, each=epsilon) as asked:
        if direct:
            found = _number(asked.ask(COUNT + f"sick AND code = {target}", epsilon))
        elif by_tracker:
            found = tracked(asked, target, epsilon / 4)
        else:
            found = difference(asked, target, epsilon / 2)
    guess = rng.integers(2) if found is None else found > 0.5
    return bool(guess) == truth


def every_target(
    kind: Kind, folder: Path, seed: int, *, epsilon: float = 1.0, patients: int = 256
) -> float:
    """Difference out every patient of one database; return the share of bits that were found."""
    rng = np.random.default_rng(seed)
    rows = people(rng, patients)
    truth = rows["sick"][np.argsort(rows["code"])]
    answers: list[Any] = []
    with curator(kind, folder, rows, DECLARED, epsilon=epsilon, each=1.0) as asked:
        share = asked.share(COUNT + "sick", patients + 1)
        whole = _number(asked.ask(COUNT + "sick", share))
        for target in range(patients):
            rest = _number(asked.ask(COUNT + f"sick AND code <> {target}", share))
            answers.append(None if rest is None or whole is None else whole - rest)
    # The whole count's error is in every difference; the middle of them all takes it out.
    known = [x for x in answers if x is not None]
    middle = 0.5 if kind is Kind.EXACT or not known else float(np.median(known))
    guesses = [bool(rng.integers(2)) if x is None else x > middle for x in answers]
    return accuracy(guesses, truth)
