"""Linear reconstruction: counts over random subsets of patients, solved for every patient's bit.

Dinur and Nissim 2003; Dwork, McSherry and Talwar 2007; and the way around a ban on naming
patients of Cohen and Nissim 2018: a subset is drawn by arithmetic on columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attacks.curators import Curator, Kind, accuracy, curator, one_table
from engine.audit_decoding import correlation, least_squares, linear_program
from engine.audit_reconstruction import PRIME, condition, subset_of

PATIENTS, QUESTIONS = 256, 1_024
BATCH = 128  # counts in one question; their number changes how long it takes and nothing else
DECLARED = one_table("code: {integer: [0, 255], not_null: true}\nsick: boolean")


def people(rng: np.random.Generator, patients: int = PATIENTS) -> dict[str, Any]:
    """Return patients with a number that tells them apart and a bit that is nobody's business."""
    return {"id": np.arange(patients) + 1_000, "code": rng.permutation(patients),
            "sick": rng.integers(0, 2, patients).astype(bool)}


def ask_all(
    curator_: Curator, rng: np.random.Generator, patients: int, questions: int, share: float | None
) -> tuple[Any, Any, float]:
    """Ask for counts of the sick in random subsets until the budget is spent.

    Returns subsets by code, (asked, patients), the answers, and the epsilon given to a question:
    it is public, so that an attacker works it out once (`share`) for many databases.
    """
    codes = np.arange(patients)
    draws = [(int(a), int(b)) for a, b in rng.integers(PRIME // 8, PRIME, (questions, 2))]
    batches = [draws[i : i + BATCH] for i in range(0, questions, BATCH)]
    texts = [
        "SELECT " + ", ".join(
            f"COUNT(*) FILTER (WHERE sick AND {condition(a, b)}) AS c{i}"
            for i, (a, b) in enumerate(part)) + " FROM people"
        for part in batches
    ]
    # Gaussian noise at a small share of delta buys most; without a budget, Laplace as asked.
    delta = 1e-8 if curator_.kind is Kind.DISCREET else 0.0
    epsilon = share or curator_.share(texts[0], len(texts), delta, parts=BATCH)
    subsets, answers = [], []
    for part, text in zip(batches, texts, strict=True):
        rows = curator_.ask(text, epsilon, delta)
        if rows is None:
            break
        subsets += [subset_of(codes, a, b) for a, b in part]
        answers += [float(x) for x in rows[0]]
    return np.array(subsets).reshape(-1, patients), np.array(answers), epsilon


def reconstruct(
    kind: Kind, folder: Path, seed: int, *, patients: int = PATIENTS, questions: int = QUESTIONS,
    epsilon: float = 1.0, each: float = 1.0, linear: bool = False,
    share: float | None = None,
) -> dict[str, float]:
    """Run the attack on one database; return the share of bits that were found."""
    rng = np.random.default_rng(seed)
    rows = people(rng, patients)
    truth = rows["sick"][np.argsort(rows["code"])].astype(int)
    with curator(kind, folder, rows, DECLARED, epsilon=epsilon, each=each) as opened:
        subsets, answers, used = ask_all(opened, rng, patients, questions, share)
    found = {"asked": float(len(answers)), "share": used, "least squares": 0.5, "correlation": 0.5}
    if len(answers):
        found["least squares"] = accuracy(least_squares(subsets, answers), truth)
        found["correlation"] = accuracy(correlation(subsets, answers), truth)
        if linear:
            found["linear program"] = accuracy(linear_program(subsets, answers), truth)
    return found
