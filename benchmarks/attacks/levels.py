"""One patient's bit through an accuracy target: where the noise stopped, beside the number.

An answer with `error=` is drawn from coarse to fine and stops where it is exact enough. The
attacker reads the level off the price and the plan, and the number off the answer; what each pair
of them says of the bit is learned beforehand on invented tables, by the engine itself.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attacks.curators import Kind, curator
from benchmarks.attacks.reconstruction import DECLARED

OTHERS = 3  # sick patients beside the target: where levels differ most
Seen = tuple[float, ...]


def _columns(bit: bool) -> dict[str, Any]:
    return {"id": np.arange(8), "code": np.arange(8),
            "sick": np.array([bit, *[True] * OTHERS, *[False] * (7 - OTHERS)])}


def _ask(engine: Any, epsilon: float, noiseless: bool) -> Seen:
    """Ask for one count and return all that an analyst sees of it."""
    sql = "SELECT COUNT(*) FROM people WHERE sick"
    if noiseless:
        return (float(engine.query(sql, epsilon=float("inf")).rows[0][0]),)
    result = engine.query(sql, error="50%", epsilon=epsilon)
    (release,) = result.plan.releases
    return (round(float(release.scale), 6), float(result.rows[0][0]))


def learned(folder: Path, times: int, epsilon: float) -> dict[Seen, float]:
    """Return for each thing seen how much likelier it is where the bit is set (log ratio)."""
    counts: dict[bool, Counter[Seen]] = {}
    for bit in (False, True):
        with curator(Kind.UNBUDGETED, folder / f"learn{bit}", _columns(bit), DECLARED) as asked:
            counts[bit] = Counter(_ask(asked.engine, epsilon, False) for _ in range(times))
    seen = counts[True].keys() | counts[False].keys()
    return {s: float(np.log((counts[True][s] + 0.5) / (counts[False][s] + 0.5))) for s in seen}


def guessed(
    kind: Kind, folder: Path, ratios: dict[Seen, float], tries: int, *, epsilon: float = 1.0
) -> list[bool]:
    """Return whether each of so many guesses was right.

    With a budget one answer is all there is, on a table of its own; without one the question is
    asked ten times and what is seen is added up.
    """
    rng, right = np.random.default_rng(5), []
    if kind is Kind.UNBUDGETED:
        for bit in (False, True):
            right += again(folder / str(bit), bit, ratios, tries // 2, rounds=10, epsilon=epsilon)
        return right
    for place in range(tries):
        bit = bool(rng.integers(2))
        with curator(kind, folder / str(place), _columns(bit), DECLARED, epsilon=epsilon) as asked:
            if kind is Kind.EXACT:
                guess = _ask(asked.engine, epsilon, True)[0] > OTHERS + 0.5
            else:
                guess = _ratio(ratios, _ask(asked.engine, epsilon, False)) > 0
            right.append(guess == bit)
    return right


def again(
    folder: Path, bit: bool, ratios: dict[Seen, float], tries: int, *, rounds: int = 1,
    epsilon: float = 1.0,
) -> list[bool]:
    """Guess one bit so many times, each time from `rounds` answers that nobody adds up."""
    with curator(Kind.UNBUDGETED, folder, _columns(bit), DECLARED) as asked:
        return [(sum(_ratio(ratios, _ask(asked.engine, epsilon, False)) for _ in range(rounds)) > 0)
                == bit for _ in range(tries)]


def _ratio(ratios: dict[Seen, float], seen: Seen) -> float:
    """Return what was learned of it; of what was never seen, its size decides."""
    return ratios.get(seen, 0.1 if seen[-1] > OTHERS + 0.5 else -0.1)
