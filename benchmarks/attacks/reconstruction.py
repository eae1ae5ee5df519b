"""Linear reconstruction: counts over random subsets of patients, solved for every patient's bit.

Dinur and Nissim 2003; Dwork, McSherry and Talwar 2007; and the way around a ban on naming
patients of Cohen and Nissim 2018: a subset is drawn by arithmetic on columns.

Every ward of a hospital is asked the same, `GROUP BY ward`, and each is an attack of its own: a
patient lies in one ward, so all wards cost what one would, and their noise is independent. In a
single question, counts of single patients are subsets too, and sums of signs tell more than counts:
these ways are here so that nobody takes random subsets for the worst that an attacker can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attacks.curators import Curator, Kind, Rows, curator, one_table
from engine.audit_decoding import (
    best_linear_weights,
    correlation_weights,
    expected,
    guessed,
    least_squares_weights,
    linear_program,
)
from engine.audit_reconstruction import PRIME, condition, subset_of

PATIENTS, QUESTIONS = 256, 1_024
BATCH = 128  # counts in one question; their number changes how long it takes and nothing else
QUOTED = 1e-8  # a small delta, so that the Renyi rail decides
DECLARED = one_table("code: {integer: [0, 255], not_null: true}\nsick: boolean")


class Way(Enum):
    """How the budget is spent."""

    IN_TURN = "counts one after the other"
    TOGETHER = "all counts at one price"
    SIGNS = "sums of signs at one price"


@dataclass(frozen=True, slots=True)
class Offer:
    """What each question is given, and the noise that a count then has: public, so that an
    attacker works it out once for many databases."""

    epsilon: float
    delta: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Attacked:
    """How an attack went: for each decoder the share of bits found in each ward, and in theory."""

    asked: int
    offer: Offer
    right: Mapping[str, list[float]]
    theory: Mapping[str, float]


def people(rng: np.random.Generator, patients: int = PATIENTS) -> dict[str, Any]:
    """Return patients with a number that tells them apart and a bit that is nobody's business."""
    return {"id": np.arange(patients) + 1_000, "code": rng.permutation(patients),
            "sick": rng.integers(0, 2, patients).astype(bool)}


def hospital(rng: np.random.Generator, wards: int, patients: int) -> dict[str, Any]:
    """Return that many patients in each ward."""
    drawn = [people(rng, patients) for _ in range(wards)]
    return {"id": np.arange(wards * patients) + 1_000,
            "ward": np.repeat(np.arange(wards), patients),
            "code": np.concatenate([d["code"] for d in drawn]),
            "sick": np.concatenate([d["sick"] for d in drawn])}


def declared(wards: int, patients: int) -> str:
    """Declare a hospital."""
    return one_table(f"ward: {{integer: [0, {wards - 1}], not_null: true}}\n"
                     f"code: {{integer: [0, {patients - 1}], not_null: true}}\nsick: boolean")


def truth_of(rows: Mapping[str, Any], wards: int) -> Any:
    """Return the bits as (patients by code, wards)."""
    order = np.lexsort((rows["code"], rows["ward"]))
    return rows["sick"][order].astype(int).reshape(wards, -1).T


# ---- random subsets ------------------------------------------------------------------------


def _column(factor: int, shift: int, way: Way) -> str:
    """Return what is asked of one subset: how many are sick, or sick inside and well outside it
    less all others, which a patient moves by two."""
    inside = condition(factor, shift)
    if way is not Way.SIGNS:
        return f"COUNT(*) FILTER (WHERE sick AND {inside})"
    return f"SUM(CASE WHEN (sick AND {inside}) OR NOT (sick OR {inside}) THEN 1 ELSE -1 END)"


def ask_all(
    asked: Curator, rng: np.random.Generator, patients: int, questions: int, way: Way,
    offer: Offer | None,
) -> tuple[Any, Any, Offer]:
    """Ask for numbers of random subsets of every ward until the budget is spent.

    Returns what is asked of whom, (asked, patients), the answers, (asked, wards), and what was
    offered: an answer is the sum over a ward's sick patients of what is asked of them, and noise.
    """
    draws = [(int(a), int(b)) for a, b in rng.integers(PRIME // 8, PRIME, (questions, 2))]
    batches = [draws[i : i + BATCH] for i in range(0, questions, BATCH)]
    texts = [
        "SELECT ward, " + ", ".join(f"{_column(a, b, way)} AS c{i}" for i, (a, b) in
                                    enumerate(part)) + " FROM people GROUP BY ward"
        for part in batches
    ]
    made = offer or (_in_turn if way is Way.IN_TURN else _together)(asked, texts)
    found: list[Rows] = []
    if way is Way.IN_TURN:
        for text in texts:
            rows = asked.ask(text, made.epsilon, made.delta)
            if rows is None:
                break
            found.append(rows)
    else:
        found = asked.ask_together(texts, made.epsilon, made.delta) or []
    codes = np.arange(patients)
    subsets = np.array([subset_of(codes, a, b) for part in batches[: len(found)] for a, b in part])
    answers = np.array([[float(row[i]) for row in sorted(rows)] for rows in found  # by ward
                        for i in range(1, len(rows[0]))])
    if way is Way.SIGNS and len(answers):  # the same sum of bits, with half of the noise
        subsets = 2 * subsets - 1
        answers = (answers + subsets.sum(axis=1, keepdims=True)) / 2
        made = replace(made, deviation=made.deviation / 2)
    return subsets.reshape(-1, patients), answers, made


def _in_turn(asked: Curator, texts: list[str]) -> Offer:
    """Gaussian noise at a small share of delta buys most; without a budget, Laplace as asked."""
    delta = QUOTED if asked.kind is Kind.DISCREET else 0.0
    epsilon = asked.share(texts[0], len(texts), delta, parts=BATCH)
    return _offer(asked, texts[0], epsilon, delta)


def _together(asked: Curator, texts: list[str]) -> Offer:
    """One charge may use up either rail: the better of the two."""
    if asked.kind is not Kind.DISCREET:
        return _offer(asked, texts, asked.share(texts, 1, 0.0, parts=BATCH * len(texts)), 0.0)
    left = asked.engine.budget().left
    sums = _offer(asked, texts, float(left.epsilon), float(left.delta))
    renyi = _offer(asked, texts, asked.share(texts, 1, QUOTED), QUOTED)
    return min(sums, renyi, key=lambda offer: offer.deviation)


def _offer(asked: Curator, sql: str | list[str], epsilon: float, delta: float) -> Offer:
    """Say what noise an answer has at this price."""
    plan = asked.explain(sql, epsilon, delta)
    release = (plan if isinstance(sql, str) else plan.questions[0]).releases[0]
    gaussian = release.mechanism == "gaussian"
    return Offer(epsilon, delta, release.scale * (1 if gaussian else 2**0.5))


def reconstruct(
    kind: Kind, folder: Path, seed: int, *, wards: int = 1, patients: int = PATIENTS,
    questions: int = QUESTIONS, epsilon: float = 1.0, each: float = 1.0, linear: int = 0,
    way: Way = Way.IN_TURN, offer: Offer | None = None,
) -> Attacked:
    """Attack every ward of one hospital; `linear` of them by linear programs as well."""
    rng = np.random.default_rng(seed)
    rows = hospital(rng, wards, patients)
    truth = truth_of(rows, wards)
    with curator(kind, folder, rows, declared(wards, patients), epsilon=epsilon,
                 each=each) as opened:
        subsets, answers, made = ask_all(opened, rng, patients, questions, way, offer)
    if not len(answers):
        return Attacked(0, made, {"least squares": [0.5] * wards}, {"least squares": 0.5})
    noise = 0.0 if kind is Kind.EXACT else made.deviation
    weights = {"least squares": least_squares_weights(subsets),
               "correlation": correlation_weights(subsets),
               "best linear": best_linear_weights(subsets, noise)}
    right = {name: shares(guessed(w, subsets, answers), truth) for name, w in weights.items()}
    if linear:
        bits = [linear_program(subsets, answers[:, ward]) for ward in range(min(linear, wards))]
        right["linear program"] = shares(np.array(bits).T, truth[:, : len(bits)])
    theory = {name: expected(w, subsets, noise) for name, w in weights.items()}
    return Attacked(len(answers), made, right, theory)


def shares(bits: Any, truth: Any) -> list[float]:
    """Return the share of right guesses in each ward."""
    return [float(share) for share in np.mean(bits == truth, axis=0)]


# ---- single patients -----------------------------------------------------------------------


def one_by_one(
    kind: Kind, folder: Path, seed: int, *, wards: int = 1, patients: int = PATIENTS,
    epsilon: float = 1.0, signs: bool = False,
) -> list[float]:
    """Ask one question for a count of each patient alone, or for plus or minus one; return the
    share of bits found in each ward.

    Nobody is in two groups, so each has noise of the whole epsilon. A patient who is sick moves a
    count by one, and the bound of one bit is e^epsilon / (1 + e^epsilon); a sign moves by two
    between sick and well, which are two changes of one patient each, and the bound that of twice
    the epsilon.
    """
    rng = np.random.default_rng(seed)
    rows = hospital(rng, wards, patients)
    asks = "SUM(CASE WHEN sick THEN 1 ELSE -1 END)" if signs else "COUNT(*) FILTER (WHERE sick)"
    with curator(kind, folder, rows, declared(wards, patients), epsilon=epsilon,
                 each=epsilon) as asked:
        answers = asked.ask(f"SELECT ward, code, {asks} FROM people GROUP BY ward, code", epsilon)
    numbers = np.array([float(n) for *_, n in sorted(answers or ())]).reshape(wards, patients).T
    middle = 0.0 if signs else 0.5
    coins = rng.integers(0, 2, numbers.shape)
    return shares(np.where(numbers == middle, coins, numbers > middle), truth_of(rows, wards))
