"""A question whose epsilon its answers divide: charge, read, reveal, refine, keep, finish.

All columns are drawn at many levels of noise, coarse to fine, and each is revealed at its coarsest.
Then the column whose relative error seems worst is refined by a level, again and again, until the
epsilon that was charged is used up. Finer levels never leave.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from engine.answers import StoredAnswer
from engine.errors import Broken
from engine.execution import Reader, open_reader, open_unpaid
from engine.release import Released, add_noise, choose_keys
from engine.releases import (
    Kept,
    Known,
    Public,
    finish,
    keep,
    keep_plan,
    keys_of,
    names_of,
    numbers_of,
    recall,
)
from engine.result import Result
from mechanisms import gradual
from mechanisms.laplace import Int64s
from mechanisms.loss import PrivacyLoss
from mechanisms.randomness import Randomness
from planner.bind import Bound
from planner.narrowing import Key
from planner.plan import Plan, describe
from planner.price import Mechanism, NoisePlan, Priced
from planner.split import (
    Ladder,
    Seen,
    Split,
    divided,
    errors_of,
    ladder_of,
    next_column,
    reserved,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from engine.ledger import Ledger, Receipt


@dataclass(frozen=True, slots=True)
class Divided:
    """A planned question with what answers it."""

    sql: str
    bound: Bound
    split: Split
    public: Public
    database: DuckDBPyConnection = field(repr=False)


# ---- the road ------------------------------------------------------------------------------


def answer_divided(
    question: Divided, ledger: Ledger, kept: Kept, pay: Callable[[NoisePlan], Receipt],
    randomness: Randomness,
) -> Result:
    """Recall, charge, read, draw, refine, keep, finish.

    Guarantee: what leaves is a function of the revealed levels, of chance, and of public and
    released things; `refined` proves what they cost, and that was charged before a row was read.
    """
    plan, known = _recalled(question, kept)
    due = reserved(question.split, frozenset(known))
    if not due.events:
        return _result(question, plan, known, PrivacyLoss.zero(), cached=True)
    receipt = pay(due)
    with suppress(Exception):  # whatever it is, its text could quote a row; the charge stands
        reader = open_reader(due, receipt, ledger, question.database, kept.data_version)
        drawn = draw(question.split, known, reader, randomness)
        levels = refined(question.split, drawn)
        plan, released = divided(question.split, drawn.scales(levels)), drawn.at(levels)
        keep(question.bound, plan, known, released, kept, question.public, receipt.seq)
        _keep_division(question.split, drawn.scales(levels), kept, receipt.seq)
        result = _result(question, plan, released, receipt.loss)
        keep_plan(kept, result.plan, receipt.seq)
        return result
    raise Broken  # after the handler has ended, so that no __context__ leads to the failure


def answer_divided_unpaid(question: Divided, randomness: Randomness) -> Result:
    """Answer without a charge, on an engine opened for insecure testing only."""
    due = reserved(question.split, frozenset())
    reader = open_unpaid(due, question.database, insecure_testing=True)
    drawn = draw(question.split, {}, reader, randomness)
    levels = refined(question.split, drawn)
    plan = divided(question.split, drawn.scales(levels))
    result = _result(question, plan, drawn.at(levels), PrivacyLoss.zero())
    return replace(result, is_private=False)


def explain_divided(question: Divided, kept: Kept | None) -> Plan:
    """Say what asking now would cost, and how the epsilon was divided if it was asked before."""
    plan, known = (question.split.plan, {}) if kept is None else _recalled(question, kept)
    due = reserved(question.split, frozenset(known))
    return _described(question, plan, due.loss)


def _recalled(question: Divided, kept: Kept) -> tuple[NoisePlan, Known]:
    """Find what is kept: this very question as its epsilon was divided, or what is as good.

    The first division of a question counts for ever, so that asking it again is free.
    """
    split = question.split
    stored = kept.answers.find(split.name, kept.data_version)
    if stored:
        first = min(stored, key=lambda answer: answer.charge_seq)
        scales = {key: float.fromhex(text) for key, text in json.loads(first.payload).items()}
        plan = divided(split, scales)
        _, known = recall(question.bound, plan, kept, question.public)
        if known.keys() >= set(names_of(plan)):
            return plan, known
    _, known = recall(question.bound, split.plan, kept, question.public)
    return split.plan, known


def _keep_division(
    split: Split, scales: Mapping[str, float], kept: Kept, charge: int
) -> None:
    text = json.dumps({key: scale.hex() for key, scale in scales.items()}, sort_keys=True)
    kept.answers.keep(StoredAnswer(split.name, kept.data_version, 0.0, text.encode(), charge))


def _result(
    question: Divided, plan: NoisePlan, known: Known, cost: PrivacyLoss, cached: bool = False
) -> Result:
    bound = question.bound
    table = finish(bound.rows, bound, plan, known, question.public, {})
    if table is None:
        raise ValueError("an answer needs all of its columns")
    return Result(table, cost, cached, _described(question, plan, cost))


def _described(question: Divided, plan: NoisePlan, cost: PrivacyLoss) -> Plan:
    whole = reserved(question.split, frozenset())
    told = replace(plan, events=whole.events, loss=whole.loss)
    return replace(describe(question.bound, told, question.sql, cost), splits=True)


# ---- levels --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cells:
    """One column's exact integers and its noise at all levels. Private: it has no text form."""

    column: Priced
    ladder: Ladder
    keys: tuple[Key, ...]
    exact: tuple[int, ...] = field(repr=False)
    noise: Int64s = field(repr=False)

    def at(self, level: int) -> Released:
        """Return the column as it is revealed at a level (0: the coarsest)."""
        values = tuple(n + int(z) for n, z in zip(self.exact, self.noise[level], strict=True))
        return Released(self.keys, values, Mechanism.LAPLACE, self.ladder.scales[level],
                        self.column.grid.step)


@dataclass(frozen=True, slots=True)
class Drawn:
    """All levels of a question's columns; what it was known before is given as it is."""

    known: Known
    cells: Mapping[str, _Cells] = field(repr=False)

    def at(self, levels: Mapping[str, int]) -> Known:
        """Return the released columns, each at its level."""
        return {**self.known, **{key: cells.at(levels[key]) for key, cells in self.cells.items()}}

    def scales(self, levels: Mapping[str, int]) -> dict[str, float]:
        """Return the scale of each column at its level."""
        return {key: cells.ladder.scales[levels[key]] for key, cells in self.cells.items()}


def draw(split: Split, known: Known, reader: Reader, randomness: Randomness) -> Drawn:
    """Read what is missing and draw its noise at every level; keys are chosen at their own price.

    Guarantee: each column is drawn once however often it is used, and every cell of its key set,
    which is public or already released, gets its own chain of noise (gradual.sample).
    """
    done, cells = dict(known), dict[str, _Cells]()
    for n, release in enumerate(split.fine.releases):
        exact = reader.run(n, numbers_of(known), {})
        if release.selection is not None and release.selection.key not in done:
            done[release.selection.key] = choose_keys(release, exact, randomness)
        keys = keys_of(release, done)
        for place, column in enumerate(release.measures):
            if column.key in done or column.key in cells:
                continue
            values = exact.columns.get(place, {})
            if column.mechanism is Mechanism.EXACT:
                done[column.key] = add_noise(column, keys, values, randomness)
                continue
            ladder = ladder_of(split, column)
            noise = gradual.sample(ladder.scales, len(keys), randomness)
            numbers = tuple(int(values.get(key, 0)) for key in keys)
            cells[column.key] = _Cells(column, ladder, keys, numbers, noise)
    return Drawn(done, cells)


def refined(split: Split, drawn: Drawn) -> dict[str, int]:
    """Return the level at which each column stops: the worst is refined while epsilon lasts.

    Guarantee: with an even share for each of these n columns charged, share * n in all, the
    revealed levels together are (share * n)-DP. For: which column is refined next, and whether
    any is, follows from what is revealed and from public facts (`next_column`). So a transcript
    that ends at levels l has, on every database, the probability of all its revealed numbers,
    column by column. Those of one column are its last level times what chance makes of it on
    the way to coarser ones (gradual.sample), and only the last level's law depends on the
    database: it changes by at most exp(l1 / scale) between neighbours, for a unit moves the
    column by at most l1. The factors multiply, and the costs at the last levels add up to at
    most share * n: they start below, with n coarsest levels, and every step is within what is left.
    """
    share, ladders = split.plan.terms.share, {k: c.ladder for k, c in drawn.cells.items()}
    centers = {key: c.column.bounded.measure.center for key, c in drawn.cells.items()}
    levels = dict.fromkeys(drawn.cells, 0)
    left = share * len(levels) - sum((ladder.costs[0] for ladder in ladders.values()), Fraction(0))
    seen = {key: _seen(cells.at(0)) for key, cells in drawn.cells.items()}
    while True:
        errors = errors_of(split, seen, centers)
        key = next_column(ladders, errors, levels, left, share)
        if key is None:
            return levels
        level = levels[key] = levels[key] + 1
        left -= ladders[key].costs[level] - ladders[key].costs[level - 1]
        seen[key] = _seen(drawn.cells[key].at(level))


def _seen(released: Released) -> Seen:
    """Return the size that half of a column's revealed numbers exceed, and their noise."""
    numbers = np.abs(np.array([float(n) for n in released.numbers()]))
    deviation = released.deviation()
    size = (float(np.median(numbers)) if len(numbers) else 0.0) - deviation / math.sqrt(2)
    return Seen(max(size, 0.0), deviation)


__all__ = ["Divided", "Drawn", "answer_divided", "answer_divided_unpaid", "draw",
           "explain_divided", "refined"]
