"""A policy's budget in, what an attacker reconstructs of synthetic patients under it, out.

Counts over random subsets are asked for through an engine with that budget, until it is spent,
and solved for every patient's bit (engine/audit_decoding.py); then once more with noise that
nobody adds up. The table is made of random bits: no row of the steward's data is touched.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.api import Engine
from engine.audit_decoding import least_squares
from engine.database import insert_columns, open_new
from engine.errors import OverBudget
from mechanisms.randomness import Randomness

if TYPE_CHECKING:
    import numpy.typing as npt

    Codes = npt.NDArray[Any]

PRIME = 8_191
BATCH = 32  # counts in one question: their number changes how long it takes and nothing else
DELTA = 1e-8  # Gaussian noise at a small share of delta buys an attacker most


@dataclass(frozen=True, slots=True)
class Simulated:
    """The share of bits that were guessed right; a coin has one half."""

    patients: int
    questions: int
    answered: int
    with_budget: float
    without_budget: float
    margin: float  # what chance alone gives or takes, at 99.9999 %


def condition(factor: int, shift: int) -> str:
    """Return SQL that selects about half of the patients by arithmetic: it names nobody
    (Cohen and Nissim 2018)."""
    return f"((code * {factor} + {shift}) % {PRIME}) % 2 = 1"


def subset_of(codes: Codes, factor: int, shift: int) -> Codes:
    """Return which patients that condition selects: the attacker's own copy of it."""
    found: Codes = ((codes * factor + shift) % PRIME) % 2
    return found


def simulated(
    epsilon: Decimal, delta: Decimal, patients: int = 128, questions: int = 512
) -> Simulated:
    """Attack a synthetic table under this budget and without one.

    Guarantee: reads no file of the steward's and charges nothing but a ledger of its own, in a
    temporary folder.
    """
    import numpy as np

    chance = Randomness.secure()
    bits = np.array([chance.integer_below(2) for _ in range(patients)])
    draws = [(PRIME // 8 + chance.integer_below(PRIME * 7 // 8), chance.integer_below(PRIME))
             for _ in range(questions)]
    codes = np.arange(patients)
    subsets = np.array([subset_of(codes, a, b) for a, b in draws])
    with tempfile.TemporaryDirectory(prefix="discreet-audit-") as name:
        policy = _written(Path(name), bits, epsilon, delta)
        with Engine.open(policy) as engine:
            answers = _asked(engine, draws, None)
        with Engine.open(policy, insecure_testing=True) as engine:
            naive = _asked(engine, draws, 1.0)
    right = _right(subsets, answers, bits)
    return Simulated(patients, questions, len(answers), right, _right(subsets, naive, bits),
                     4.9 / 2 / patients**0.5)


def _written(folder: Path, bits: Codes, epsilon: Decimal, delta: Decimal) -> Path:
    import numpy as np

    connection = open_new(folder / "people.duckdb")
    try:
        connection.execute("CREATE TABLE people (id BIGINT, code BIGINT, bit BOOLEAN)")
        columns = {"id": np.arange(len(bits)) + 1, "code": np.arange(len(bits)),
                   "bit": bits.astype(bool)}
        insert_columns(connection, "INSERT INTO people SELECT id, code, bit FROM given", columns)
    finally:
        connection.close()
    path = folder / "people.yaml"
    path.write_text(
        f"discreet: 1\ndatabase: people.duckdb\nledger: people.ledger.sqlite\n"
        f"budget: {{epsilon: {epsilon}, delta: {delta:f}}}\nunit: people.id\ntables:\n  people:\n"
        "    one_row_per_unit: true\n    columns:\n      id: unit\n"
        f"      code: {{integer: [0, {len(bits) - 1}], not_null: true}}\n      bit: boolean\n",
        encoding="utf-8",
    )
    return path


def _asked(
    engine: Engine, draws: list[tuple[int, int]], each: float | None
) -> list[float]:
    """Ask for all counts until the budget is spent; `each` is an epsilon where nobody adds up."""
    texts = [
        "SELECT " + ", ".join(
            f"COUNT(*) FILTER (WHERE bit AND {condition(a, b)}) AS c{i}"
            for i, (a, b) in enumerate(draws[start : start + BATCH])) + " FROM people"
        for start in range(0, len(draws), BATCH)
    ]
    delta = 0.0 if each is not None or not engine.policy.budget.delta > DELTA * 100 else DELTA
    epsilon = each * BATCH if each is not None else _share(engine, texts[0], len(texts), delta)
    answers: list[float] = []
    for text in texts:
        try:
            answers += [float(n) for n in engine.query(text, epsilon=epsilon, delta=delta).rows[0]]  # type: ignore[arg-type]
        except OverBudget:
            break
    return answers


def _share(engine: Engine, sql: str, times: int, delta: float) -> float:
    """Return the largest epsilon at which `times` such questions fit the budget, on either rail."""
    left = engine.budget().left
    low, high = 0.0, 16 * float(engine.policy.budget.epsilon)
    for _ in range(14):
        middle = (low + high) / 2
        cost = engine.explain(sql, epsilon=middle, delta=delta).full_cost
        fits = (cost.epsilon * times <= left.epsilon and cost.delta * times <= left.delta) or (
            0 < cost.rdp * times <= left.rdp)
        low, high = (middle, high) if fits else (low, middle)
    return low


def _right(subsets: Codes, answers: list[float], bits: Codes) -> float:
    import numpy as np

    if not answers:
        return 0.5
    guessed = least_squares(subsets[: len(answers)], np.array(answers))
    return float(np.mean(guessed == bits))
