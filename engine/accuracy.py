"""A question with an accuracy target in, the coarsest answer that meets it out, and its price.

The finest level is reserved in the ledger before a row is read. All levels are drawn, coarse to
fine; they are revealed one by one, each judged by itself and by what was revealed before it, up to
the first that is good enough. The reservation is settled at that level. Finer levels never leave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import ceil, floor, log10
from typing import TYPE_CHECKING

from engine.errors import Broken, TargetMissed
from engine.execution import Reader, open_reader, open_unpaid
from engine.postprocess import Table
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
from mechanisms.pricing import levels_of
from mechanisms.randomness import Randomness
from planner.bind import Bound, Rows
from planner.expression import Column, replaced
from planner.narrowing import Key
from planner.plan import describe
from planner.price import Mechanism, NoisePlan, Priced
from planner.relation import Release
from planner.target import (
    Aim,
    Cell,
    Outcome,
    Target,
    at_level,
    is_reached,
    release_of,
    reservation,
    shortfall,
    unfiltered,
)
from planner.uncertainty import (
    confidence_of,
    derived_columns,
    noisy_columns,
    summed_width,
    totals_of,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from engine.ledger import Ledger, Receipt


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays, and where answers are kept."""

    ledger: Ledger
    kept: Kept
    pay: Callable[[NoisePlan], Receipt] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Question:
    """A planned question with what answers it."""

    sql: str
    bound: Bound
    aim: Aim
    public: Public
    database: DuckDBPyConnection = field(repr=False)


# ---- the road ------------------------------------------------------------------------------


def answer_within(
    question: Question, account: Account, randomness: Randomness, strict: bool
) -> Result:
    """Recall, reserve, read, draw, reveal, keep, settle, finish.

    Raises TargetMissed where `strict` and even the finest level was not good enough: that was
    seen in the data, so the finest level is charged.

    Guarantee: what leaves is a function of levels 0 to the settled one, of chance, and of public
    and released things. Given any history its probabilities on neighbours differ by at most
    exp(the settled epsilon), plus delta where keys are chosen.
    """
    bound, aim, kept = question.bound, question.aim, account.kept
    known = _kept_enough(question, kept)
    if known is None:
        _, known = recall(bound, aim.plan, kept, question.public)
        due = reservation(aim.plan, aim.levels, frozenset(known))
        if due.events:
            return _checked(_reserved(question, account, known, due, randomness), strict)
    return _checked(_result(question, aim.plan, known, None, PrivacyLoss.zero()), strict)


def _reserved(
    question: Question, account: Account, known: Known, due: NoisePlan, randomness: Randomness
) -> Result:
    """Answer what is not kept yet, on a reservation."""
    aim, kept = question.aim, account.kept
    receipt = account.pay(due)
    with suppress(Exception):  # whatever it is, its text could quote a row; the charge stands
        reader = open_reader(due, receipt, account.ledger, question.database, kept.data_version)
        drawn = _draw(due, known, reader, aim.levels, randomness)
        level = _stop(question, drawn)
        plan, released = at_level(aim.plan, aim.levels, level), drawn.at(level)
        # Kept first: should the settlement fail, the answer is out at the price of the reserve.
        keep(question.bound, plan, known, released, kept, question.public, receipt.seq)
        settles = levels_of(due.events) > 0
        cost = account.ledger.settle(receipt, level) if settles else receipt.loss
        result = _result(question, plan, released, level, cost)
        keep_plan(kept, result.plan, receipt.seq)
        return result
    raise Broken  # after the handler has ended, so that no __context__ leads to the failure


def answer_unpaid(question: Question, randomness: Randomness) -> Result:
    """Answer without a charge, on an engine opened for insecure testing only."""
    aim = question.aim
    reader = open_unpaid(aim.plan, question.database, insecure_testing=True)
    drawn = _draw(aim.plan, {}, reader, aim.levels, randomness)
    level = _stop(question, drawn)
    plan = at_level(aim.plan, aim.levels, level)
    result = _result(question, plan, drawn.at(level), level, PrivacyLoss.zero())
    return replace(result, is_private=False)


def _checked(result: Result, strict: bool) -> Result:
    if strict and result.target is not None and not result.target.met:
        raise TargetMissed(result.cost, result.target.words)
    return result


# ---- levels --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cells:
    """One column's exact integers and its noise at all levels. Private: it has no text form."""

    column: Priced
    scales: tuple[float, ...]
    keys: tuple[Key, ...]
    exact: tuple[int, ...] = field(repr=False)
    noise: Int64s = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """All levels of a question, of which `at` reveals one."""

    known: Known
    cells: Mapping[str, _Cells] = field(repr=False)

    def at(self, level: int) -> Known:
        """Return the released columns at a level (0: the coarsest).

        Guarantee: the noise was drawn once; level i is the finer ones plus noise of their own.
        """
        return {**self.known, **{
            key: Released(
                cells.keys,
                tuple(n + int(z) for n, z in zip(cells.exact, cells.noise[level], strict=True)),
                Mechanism.LAPLACE, cells.scales[level], cells.column.grid.step,
            )
            for key, cells in self.cells.items()
        }}


def _draw(
    plan: NoisePlan, known: Known, reader: Reader, levels: int, randomness: Randomness
) -> _Drawn:
    """Read what is missing and draw its noise at every level; keys are chosen at their own price.

    Guarantee: each column is drawn once however often it is used, and every cell of its key set,
    which is public or already released, gets its own chain of noise.
    """
    done = dict(known)
    cells: dict[str, _Cells] = {}
    for place, release in enumerate(plan.releases):
        exact = reader.run(place, numbers_of(known), {})
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
            scales = gradual.scales_of(column.scale, levels)
            noise = gradual.sample(scales, len(keys), randomness)
            numbers = tuple(int(values.get(key, 0)) for key in keys)
            cells[column.key] = _Cells(column, scales, keys, numbers, noise)
    return _Drawn(done, cells)


def _stop(question: Question, drawn: _Drawn) -> int:
    """Return the first level that meets the target, or the finest.

    Guarantee: whether to go on after a level is decided by the released numbers of that level
    and by public facts.
    """
    for level in range(question.aim.levels):
        if is_reached(judged(question, drawn.at(level)), question.aim.target):
            return level
    return question.aim.levels - 1


# ---- is it good enough? --------------------------------------------------------------------


def judged(question: Question, known: Known) -> list[list[Cell]]:
    """Return what a target is judged by: the noisy cells of each row, with their intervals.

    Guarantee: reads released columns and public tables only.
    """
    bound, target = question.bound, question.aim.target
    if target.share is None:
        return [_totals(bound, question.aim.plan, known, target)]
    rows = unfiltered(bound.rows)
    plain = _plain_cells(rows, bound, question.aim.plan, known, target)
    if plain is not None:
        return plain
    table = finish(rows, bound, question.aim.plan, known, question.public, {}, target.confidence)
    if table is None:
        raise ValueError("a target is judged by complete answers")
    noisy = _noisy_places(bound)
    return [
        [(row[i], intervals[i]) for i in noisy]
        for row, intervals in zip(table.rows, table.intervals, strict=True)
    ]


def _plain_cells(
    rows: Rows, bound: Bound, plan: NoisePlan, known: Known, target: Target
) -> list[list[Cell]] | None:
    """Return the noisy cells where every one is a released number as it is, else None.

    These are the same as on the desk, which takes a hundred times longer for a few groups.
    """
    outputs = [rows.outputs[i][1] for i in _noisy_places(bound)]
    if not isinstance(rows.relation, Release) or totals_of(rows.relation):
        return None
    columns: list[list[Cell]] = []
    for output in outputs:
        if not (isinstance(output, Column) and output.source == rows.relation.source
                and output.name.startswith("m")):
            return None
        released = known[release_of(plan, output)[1].key]
        width = released.half_width(confidence_of(1, target.confidence))
        columns.append([(y, (y - width, y + width)) for y in released.numbers()])
    return [list(cells) for cells in zip(*columns, strict=True)]


def _noisy_places(bound: Bound) -> list[int]:
    statistics = derived_columns(bound.rows.relation)
    return [
        i for i, (_, expression) in enumerate(bound.rows.outputs)
        if noisy_columns(replaced(expression, statistics), bound.rows.relation)
    ]


def _totals(bound: Bound, plan: NoisePlan, known: Known, target: Target) -> list[Cell]:
    """Return each output's sum over all groups, with the interval of that sum."""
    found: list[Cell] = []
    for _, expression in bound.rows.outputs:
        for column in noisy_columns(expression, bound.rows.relation):
            released = known[release_of(plan, column)[1].key]
            confidence = confidence_of(1, target.confidence)
            numbers = released.numbers()
            total = sum(numbers)
            width = summed_width(released.half_width(confidence), released.deviation(),
                                 len(numbers), confidence)
            found.append((total, (total - width, total + width)))
    return found


def due_now(question: Question, kept: Kept) -> PrivacyLoss:
    """Return what asking now would reserve: nothing where kept answers are exact enough."""
    if _kept_enough(question, kept) is not None:
        return PrivacyLoss.zero()
    aim = question.aim
    _, known = recall(question.bound, aim.plan, kept, question.public)
    return reservation(aim.plan, aim.levels, frozenset(known)).loss


def _kept_enough(question: Question, kept: Kept) -> Known | None:
    """Return kept answers that meet the target, however coarse they are, or None."""
    aim = question.aim
    coarsest = at_level(aim.plan, aim.levels, 0)
    _, known = recall(question.bound, coarsest, kept, question.public)
    if not known.keys() >= set(names_of(coarsest)):
        return None
    return known if is_reached(judged(question, known), aim.target) else None


# ---- what is told --------------------------------------------------------------------------


def _result(
    question: Question, plan: NoisePlan, known: Known, level: int | None, cost: PrivacyLoss
) -> Result:
    """Put the revealed columns into an answer; `level` None: all of it was kept."""
    bound = question.bound
    table: Table | None = finish(bound.rows, bound, plan, known, question.public, {})
    if table is None:
        raise ValueError("an answer needs all of its columns")
    described = describe(bound, plan, question.sql, cost)
    return Result(table, cost, level is None, described, target=_outcome(question, known, level))


def _outcome(question: Question, known: Known, level: int | None) -> Outcome:
    aim = question.aim
    rows = judged(question, known)
    met = is_reached(rows, aim.target)
    where = "answered before" if level is None else f"level {level + 1} of {aim.levels}"
    if met:
        words = f"within {aim.words}: {where}"
    else:
        words = (f"not within {aim.words}, at epsilon {float(aim.cap):g}: "
                 f"{_remedy(aim, shortfall(rows, aim.target))}")
    return Outcome(met, level, aim.levels, words)


def _remedy(aim: Aim, factor: float | None) -> str:
    """Say what would meet the target, as far as the released numbers tell."""
    others = ["a coarser GROUP BY"] if aim.grouped else []
    if aim.grouped and aim.target.share is not None:
        others = ["a share of the groups (FOR 90% OF GROUPS)", "FOR TOTAL", *others]
    if factor is not None:
        others = [f"about epsilon {_rounded_up(float(aim.cap) * factor):g}", *others]
        return f"{' or '.join(others)} would do"
    others = others or ["an absolute error"]
    return f"an answer may be zero, which no percentage fits; {' or '.join(others)} would do"


def _rounded_up(value: float) -> float:
    """Round up to two digits."""
    place = 10.0 ** (floor(log10(value)) - 1)
    return ceil(value / place) * place


def fixed_outcome(aim: Aim) -> Outcome:
    """Say what comes of a target whose price was known beforehand."""
    if aim.is_met:
        return Outcome(True, None, 0, f"within {aim.words}: worked out beforehand")
    return Outcome(False, None, 0, f"not within {aim.words}: {fixed_remedy(aim)}")


def fixed_remedy(aim: Aim) -> str:
    """Say which epsilon meets a target that the cap does not."""
    if aim.needed is None:
        return "no usable epsilon gives so exact an answer"
    return (f"it takes epsilon {_rounded_up(float(aim.needed)):g}, and at most "
            f"{float(aim.cap):g} may be spent")


__all__ = [
    "Account", "Question", "answer_unpaid", "answer_within", "due_now", "fixed_outcome",
    "fixed_remedy", "judged",
]
