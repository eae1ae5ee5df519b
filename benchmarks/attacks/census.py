"""A small block from all of its tables: which people could give these margins?

Garfinkel, Abowd and Martindale 2019. Every three-way table of a block's four attributes is asked
for; an integer program (HiGHS) finds people whose tables are nearest to the answers. Whether it
had to be them is asked again: how many records could the best tables do without?
"""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix, hstack, identity

from benchmarks.attacks.curators import Curator, Kind, curator, one_table

PEOPLE = 30
LEVELS = {"age": 8, "sex": 2, "origin": 4, "sick": 2}
NAMES = tuple(LEVELS)
DECLARED = one_table("\n".join(
    f"{name}: {{integer: [0, {size - 1}], not_null: true}}" for name, size in LEVELS.items()))
CELLS = list(product(*(range(size) for size in LEVELS.values())))
SECONDS_MAX = 20.0


def block(rng: np.random.Generator, people: int = PEOPLE) -> Any:
    """Return the records of one block: each an index into CELLS."""
    return rng.integers(0, len(CELLS), people)


def margins() -> list[tuple[str, ...]]:
    """Return the three-way tables."""
    return list(combinations(NAMES, 3))


def ask_tables(asked: Curator) -> list[tuple[Any, float]]:
    """Ask for every table; return (which cells a number adds up, the number)."""
    texts = [f"SELECT {', '.join(m)}, COUNT(*) FROM people GROUP BY {', '.join(m)}"
             for m in margins()]
    share = asked.share(texts[0], len(texts))
    found = []
    for margin, text in zip(margins(), texts, strict=True):
        places = [NAMES.index(name) for name in margin]
        for *key, n in asked.ask(text, share) or ():
            members = np.array([tuple(c[p] for p in places) == tuple(key) for c in CELLS])
            found.append((members, float(n)))
    if asked.kind is Kind.EXACT and found:  # unbounded answers leave empty groups out
        found += _empty(found)
    return found


def _empty(found: list[tuple[Any, float]]) -> list[tuple[Any, float]]:
    seen = {members.tobytes() for members, _ in found}
    missing = []
    for margin in margins():
        places = [NAMES.index(name) for name in margin]
        for key in product(*(range(LEVELS[name]) for name in margin)):
            members = np.array([tuple(c[p] for p in places) == key for c in CELLS])
            if members.tobytes() not in seen:
                missing.append((members, 0.0))
    return missing


def nearest(tables: list[tuple[Any, float]], people: int, prefer: Any = None) -> Any:
    """Return how many people of each kind give the tables that lie nearest to the answers.

    `prefer` is added to each kind's cost, small enough to decide between equals only.
    """
    matrix = csr_matrix(np.array([members for members, _ in tables], dtype=float))
    answers = np.array([n for _, n in tables])
    rows, cells = matrix.shape
    off = identity(rows, format="csr")
    cost = np.concatenate([np.zeros(cells) if prefer is None else prefer, np.ones(rows)])
    total = csr_matrix(np.concatenate([np.ones(cells), np.zeros(rows)]))
    solved = milp(
        cost, integrality=np.concatenate([np.ones(cells), np.zeros(rows)]),
        bounds=Bounds(0, np.concatenate([np.full(cells, people), np.full(rows, np.inf)])),
        constraints=[
            LinearConstraint(hstack([matrix, -off]), -np.inf, answers),
            LinearConstraint(hstack([matrix, off]), answers, np.inf),
            LinearConstraint(total, people, people),
        ],
        options={"time_limit": SECONDS_MAX, "mip_rel_gap": 0.01},
    )
    return np.zeros(cells) if solved.x is None else np.round(solved.x[:cells])


def reconstructed(
    kind: Kind, folder: Path, seed: int, *, people: int = PEOPLE, epsilon: float = 1.0,
    each: float = 1.0,
) -> dict[str, float]:
    """Return the share of records found, the same for people who are not there, and how much of
    two equally good solutions is the same.

    Under (epsilon, delta)-DP a record that is there is found at most e^epsilon times as often as
    one that is not, plus delta.
    """
    rng = np.random.default_rng(seed)
    records, others = block(rng, people), block(rng, people)
    columns = {"id": np.arange(people) + 1}
    columns |= {name: np.array([CELLS[r][i] for r in records]) for i, name in enumerate(NAMES)}
    with curator(kind, folder, columns, DECLARED, epsilon=epsilon, each=each) as asked:
        tables = ask_tables(asked)
    found = nearest(tables, people)
    again = nearest(tables, people, rng.uniform(0, 1e-3, len(CELLS)))
    return {
        "match": _claimed(found, records), "baseline": _claimed(found, others),
        "agree": float(np.minimum(found, again).sum() / people),
    }


def _claimed(found: Any, records: Any) -> float:
    return float(np.mean(found[records] > 0))
