"""The same question again and again, in other words, by other people: does the noise average out?

Ten analysts share what they see. Noise exploitation and cloning of Gadotti et al. 2019 (dummy
conditions that change the text and not the meaning) are among the rewrites.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice, product
from pathlib import Path

import numpy as np

from benchmarks.attacks.curators import Kind, curator, reopened
from benchmarks.attacks.reconstruction import DECLARED, people

ANALYSTS = tuple(f"analyst{i}" for i in range(10))
QUOTAS = "analysts: {" + ", ".join(f"{name}: {{epsilon: 1}}" for name in ANALYSTS) + "}\n"
# What is counted, in the words of different people; all mean the same.
SAME = (
    "code > 5 AND sick", "sick AND code > 5", "NOT code <= 5 AND sick", "5 < code AND sick",
    "sick AND NOT (code <= 5)", "NOT (NOT sick OR code <= 5)", "(sick) AND ((code) > 5)",
    "code > 5.0 AND sick", "sick AND code > 5 AND sick",
)
SHAPES = (
    "SELECT COUNT(*) FROM people WHERE {}",
    "SELECT COUNT(*) AS n FROM people AS p WHERE {}",
    "SELECT COUNT(*) FROM (SELECT * FROM people WHERE {}) AS t",
    "WITH t AS (SELECT code, sick FROM people) SELECT COUNT(*) FROM t WHERE {}",
    "select  count( * )  from people where {} -- again",
    "SELECT n FROM (SELECT COUNT(*) AS n FROM people WHERE {}) AS t ORDER BY n LIMIT 1",
)
# The same again, by dummy conditions and arithmetic. The engine tells some of these apart: what is
# told apart is paid for, so that averaging over them costs as much as it gives.
CLONES = (
    "sick AND code > 5 AND TRUE", "sick AND code > 5 AND 1 = 1", "sick = TRUE AND code > 5",
    "code > 2 + 3 AND sick", "sick AND code >= 6", "sick AND code BETWEEN 6 AND 255",
    "sick AND code NOT IN (0,1,2,3,4,5)", "sick AND code > 5 AND code > 4",
    *(f"sick AND code > 5 AND code < {n}" for n in range(256, 280)),
    *(f"sick AND code > 5 AND code <> {n}" for n in range(300, 330)),
)


@dataclass(frozen=True, slots=True)
class Averaged:
    """What many answers to one question came to."""

    answers: int
    charges: int
    distinct: int
    spent: float
    first: float
    mean: float
    truth: int


def rewrites() -> Iterator[str]:
    """Yield spellings of one question, round and round."""
    return cycle(shape.format(where) for where, shape in product(SAME, SHAPES))


def clones() -> Iterator[str]:
    """Yield dummy conditions, round and round."""
    return cycle(SHAPES[0].format(where) for where in CLONES)


def averaged(
    kind: Kind, folder: Path, seed: int, *, times: int = 10_000, epsilon: float = 0.1,
    texts: Iterator[str] | None = None, budget: float = 1.0,
) -> Averaged:
    """Ask one question many times, in turns by all analysts."""
    rows = people(np.random.default_rng(seed))
    truth = int(np.sum(rows["sick"] & (rows["code"] > 5)))
    answers = []
    more = QUOTAS.replace("epsilon: 1", f"epsilon: {budget!r}")
    with curator(kind, folder, rows, DECLARED, epsilon=budget, each=epsilon, more=more) as asked:
        for text, analyst in zip(islice(texts or rewrites(), times), cycle(ANALYSTS), strict=False):
            found = asked.ask(text, epsilon, analyst=analyst)
            if found is not None:
                answers.append(float(found[0][0]))
        spent = asked.engine.budget().spent.epsilon
        charges = len(asked.engine.history())
    return Averaged(len(answers), charges, len(set(answers)), float(spent), answers[0],
                    float(np.mean(answers)), truth)


def by_processes(
    kind: Kind, folder: Path, seed: int, *, processes: int = 10, times: int = 54,
    epsilon: float = 0.1,
) -> Averaged:
    """Ask one question in other words by other analysts in processes of their own, all at once."""
    rows = people(np.random.default_rng(seed))
    truth = int(np.sum(rows["sick"] & (rows["code"] > 5)))
    with curator(kind, folder, rows, DECLARED, each=epsilon, more=QUOTAS) as asked:
        context = multiprocessing.get_context("spawn")
        with context.Pool(processes) as pool:
            parts = pool.starmap(_in_a_process, [
                (kind, folder, place, times, epsilon) for place in range(processes)])
        spent, charges = asked.engine.budget().spent.epsilon, len(asked.engine.history())
    answers = [answer for part in parts for answer in part]
    return Averaged(len(answers), charges, len(set(answers)), float(spent), answers[0],
                    float(np.mean(answers)), truth)


def _in_a_process(
    kind: Kind, folder: Path, place: int, times: int, epsilon: float
) -> list[float]:
    analyst = ANALYSTS[place % len(ANALYSTS)]
    texts = islice(rewrites(), place, place + times)  # each begins with another spelling
    with reopened(kind, folder, each=epsilon) as asked:
        found = [asked.ask(text, epsilon, analyst=analyst) for text in texts]
    return [float(rows[0][0]) for rows in found if rows is not None]
