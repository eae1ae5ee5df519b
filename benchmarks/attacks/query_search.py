"""Attribute inference by automated search: sets of questions are bred until they tell a bit.

After QuerySnout (Cretu et al. 2022) and QueryCheetah (Stevanoski et al. 2024). The attacker knows
every attribute of the target but one, the policy and the code, breeds question sets on tables of
invented patients at the noise that `explain` states, and uses the best set once on the real table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attacks.curators import Kind, curator, one_table

ATTRIBUTES = 4
LEVELS = 4
QUESTIONS = 5
REPEATS = 20  # draws of noise for each invented table
IGNORED, EQUAL, DIFFERENT = 0, 1, 2
DECLARED = one_table(
    "\n".join(f"a{i}: {{integer: [0, {LEVELS - 1}], not_null: true}}" for i in range(ATTRIBUTES))
    + "\nsick: boolean"
)
Queries = Any  # (questions, attributes + 1): what each asks of each attribute, and of the bit


@dataclass(frozen=True, slots=True)
class Bred:
    """The best question set found, and the weights that turn its answers into a guess."""

    queries: Queries
    weights: Any
    bias: float


def table(rng: np.random.Generator, target: Any, patients: int) -> tuple[Any, Any]:
    """Return attributes and bits; row 0 is the target, and nobody else looks like it."""
    attributes = rng.integers(0, LEVELS, (patients, ATTRIBUTES))
    attributes[0] = target
    twins = np.all(attributes[1:] == target, axis=1)
    attributes[1:][twins, 0] = (target[0] + 1) % LEVELS
    return attributes, rng.integers(0, 2, patients)


def counts(queries: Queries, target: Any, attributes: Any, bits: Any) -> Any:
    """Return the true answers."""
    same = attributes == target
    found = np.empty(len(queries))
    for i, query in enumerate(queries):
        rows = np.ones(len(attributes), dtype=bool)
        for j, kind in enumerate(query[:-1]):
            if kind != IGNORED:
                rows &= same[:, j] if kind == EQUAL else ~same[:, j]
        if query[-1] != IGNORED:
            rows &= bits == (1 if query[-1] == EQUAL else 0)
        found[i] = rows.sum()
    return found


def as_sql(query: Any, target: Any) -> str:
    """Return one question as text."""
    parts = [f"a{j} {'=' if kind == EQUAL else '<>'} {int(target[j])}"
             for j, kind in enumerate(query[:-1]) if kind != IGNORED]
    if query[-1] != IGNORED:
        parts.append("sick" if query[-1] == EQUAL else "NOT sick")
    return "SELECT COUNT(*) FROM people" + (" WHERE " + " AND ".join(parts) if parts else "")


def _fit(answers: Any, bits: Any) -> tuple[Any, float]:
    """Return a linear rule for a bit by least squares on standardised answers."""
    design = np.column_stack([answers, np.ones(len(answers))])
    solved, *_ = np.linalg.lstsq(design, 2.0 * bits - 1, rcond=None)
    return solved[:-1], float(solved[-1])


def different(queries: Queries) -> tuple[int, Any]:
    """Return how many questions of a set differ, and which of them each question is."""
    _, which = np.unique(queries, axis=0, return_inverse=True)
    which = np.asarray(which).reshape(-1)
    return int(which.max()) + 1, which


def _noise(rng: np.random.Generator, kind: Kind, scale: float, queries: Queries, times: int) -> Any:
    """Return noise as the engine adds it: with a budget, equal questions are asked and paid once,
    and `scale`, that of the whole budget, grows with their number."""
    if kind is Kind.EXACT:
        return np.zeros((times, len(queries)))
    if kind is Kind.UNBUDGETED:
        return np.round(rng.laplace(0, scale, (times, len(queries))))
    number, which = different(queries)
    return np.round(rng.laplace(0, scale * number, (times, number)))[:, which]


def breed(
    rng: np.random.Generator, kind: Kind, scale: float, patients: int, *, generations: int = 12,
    population: int = 16, shadows: int = 60,
) -> Bred:
    """Search for the question set whose answers tell the target's bit best, at this noise."""
    target = rng.integers(0, LEVELS, ATTRIBUTES)
    worlds = [table(rng, target, patients) for _ in range(2 * shadows)]
    truth = np.array([bits[0] for _, bits in worlds])
    pool = [rng.integers(0, 3, (QUESTIONS, ATTRIBUTES + 1)) for _ in range(population)]
    scored: list[tuple[float, int, Bred]] = []
    for _ in range(generations):
        for queries in pool:
            clean = np.array([counts(queries, target, *world) for world in worlds])
            answers = np.repeat(clean, REPEATS, axis=0)
            answers = answers + _noise(rng, kind, scale, queries, len(answers))
            bits = np.repeat(truth, REPEATS)
            half = REPEATS * shadows
            weights, bias = _fit(answers[:half], bits[:half])
            right = np.mean((answers[half:] @ weights + bias > 0) == bits[half:])
            scored.append((float(right), len(scored), Bred(queries, weights, bias)))
        scored = sorted(scored, key=lambda s: s[:2], reverse=True)[: population // 4]
        pool = [_mutated(rng, scored[int(rng.integers(len(scored)))][2].queries)
                for _ in range(population)]
    return scored[0][2]


def _mutated(rng: np.random.Generator, queries: Queries) -> Queries:
    changed = queries.copy()
    for _ in range(int(rng.integers(1, 4))):
        changed[rng.integers(QUESTIONS), rng.integers(ATTRIBUTES + 1)] = rng.integers(3)
    if rng.random() < 0.3:  # a question like another, but for one attribute: a difference
        copy = changed[rng.integers(QUESTIONS)].copy()
        copy[rng.integers(ATTRIBUTES + 1)] = rng.integers(3)
        changed[rng.integers(QUESTIONS)] = copy
    if rng.random() < 0.3:  # fewer questions, or one asked again
        changed[rng.integers(QUESTIONS)] = changed[rng.integers(QUESTIONS)]
    return changed


def guessed(
    kind: Kind, folder: Path, bred: Bred, seed: int, *, patients: int = 100, epsilon: float = 1.0,
    each: float = 1.0, times: int = 1, once: bool = False,
) -> float:
    """Use a question set on one new table; return the share of right guesses in so many tries.

    `once` asks equal questions once, as a budget makes one do, where there is none.
    """
    rng = np.random.default_rng(seed)
    target = rng.integers(0, LEVELS, ATTRIBUTES)
    attributes, bits = table(rng, target, patients)
    columns = {"id": np.arange(patients) + 1, "sick": bits.astype(bool)}
    columns |= {f"a{i}": attributes[:, i] for i in range(ATTRIBUTES)}
    share = epsilon / different(bred.queries)[0] if kind is Kind.DISCREET else each
    texts = [as_sql(query, target) for query in bred.queries]
    right = []
    with curator(kind, folder, columns, DECLARED, epsilon=epsilon, each=each) as asked:
        for _ in range(times):
            if once:
                told = {text: asked.ask(text, share) for text in dict.fromkeys(texts)}
                rows = [told[text] for text in texts]
            else:
                rows = [asked.ask(text, share) for text in texts]
            answers = np.array([float(r[0][0]) if r else patients / 4 for r in rows])
            right.append(bool(answers @ bred.weights + bred.bias > 0) == bool(bits[0]))
    return float(np.mean(right))
