"""Several questions in, one charge and all of their answers out.

The road is that of a single question: plan, recall, pay, read, add noise, keep, finish. What is
different lies in the plan (planner/workload.py): few levels are measured for all questions, and the
answers are put together from the released numbers here, which is post-processing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from math import floor, log2
from typing import TYPE_CHECKING

import numpy as np

from engine.accuracy import Account
from engine.errors import Broken
from engine.execution import Reader, open_reader, open_unpaid
from engine.postprocess import Table
from engine.release import Combined, Released
from engine.releases import (
    Kept,
    Known,
    Public,
    fill,
    finish,
    given_values,
    keep,
    keep_derived,
    keep_plan,
    recall,
)
from engine.result import Result
from engine.results import Results
from mechanisms.loss import PrivacyLoss
from mechanisms.marginals import Floats, Marginal, Measured, combined
from mechanisms.randomness import Randomness
from planner.bind import Bound, Rows, bind
from planner.bounding import bound as bound_release
from planner.catalog import Catalog
from planner.families import Asked, Place
from planner.families import cells as cells_by
from planner.parse import TEXTS_MAX, parse, split
from planner.price import remaining
from planner.refusal import Refused
from planner.relation import Nothing
from planner.repair import taught
from planner.workload import (
    Levels,
    Recipe,
    Workload,
    noise_at,
    noise_by,
    plan_workload,
    view_of,
)
from planner.workload_plan import WorkloadPlan, describe_workload

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

QUESTIONS_MAX = 500
DUST_BITS = 36  # numbers put together are rounded to their deviation over 2^36
NUMBERS_APART = 10_000  # so many relations of one question have numbers of their own
# The families' own releases use no answers further in.
_FAMILIES = Bound(Rows(Nothing(), ()), ())


@dataclass(frozen=True, slots=True)
class Terms:
    """What a whole batch may cost, in which SQL it is written, and how many rows may count."""

    epsilon: Fraction
    delta: Fraction
    order: Fraction
    rows: int | None = None
    dialect: str = "duckdb"


def plan_batch(texts: str | Sequence[str], terms: Terms, catalog: Catalog) -> Workload:
    """Text to one priced plan: reads no row, spends nothing.

    Raises Refused for the first question that is not answered, with its number; then none is.
    """
    asked = []
    for number, sql in enumerate(_separate(texts, terms.dialect), start=1):
        def judge(text: str, number: int = number) -> Asked:
            return _asked(text, number, terms, catalog)

        try:
            asked.append(judge(sql))
        except Refused as refusal:
            found = taught(refusal, sql, catalog, judge, terms.dialect)
            raise Refused(found.rule, f"question {number}: {found.message}", found.hint,
                          found.position, found.sql, found.instead) from None
    return plan_workload(tuple(asked), terms.epsilon, terms.delta, terms.order, terms.rows)


def _separate(texts: str | Sequence[str], dialect: str) -> tuple[str, ...]:
    """Return single statements; a text may hold several."""
    if not isinstance(texts, Sequence):
        raise Refused("batch", f"a batch is a list of questions, got {type(texts).__name__}",
                      "query_many([\"SELECT ...\", \"SELECT ...\"])")
    given = [texts] if isinstance(texts, str) else list(texts)
    if sum(len(text) for text in given if isinstance(text, str)) > TEXTS_MAX:
        raise Refused("too-large", f"these questions have more than {TEXTS_MAX:,} characters",
                      "fewer questions at once")
    found = tuple(part for text in given for part in split(text, dialect))
    if not 1 <= len(found) <= QUESTIONS_MAX:
        raise Refused("batch", f"a batch has 1 to {QUESTIONS_MAX} questions, got {len(found)}",
                      "query_many([\"SELECT ...\", \"SELECT ...\"])")
    return found


def _asked(sql: str, number: int, terms: Terms, catalog: Catalog) -> Asked:
    parsed = parse(sql, terms.dialect)
    if parsed.options:
        name = parsed.options[0][0]
        raise Refused("batch", f"{name} belongs to a question by itself: a batch has one price",
                      "query_many([...], epsilon=1), or ask this question with query()")
    bound = bind(parsed, catalog)
    if bound.givens:
        # What stands for an answer used further in is told apart by its number, across questions.
        bound = bind(parsed, catalog, number * NUMBERS_APART)
    return Asked(sql, bound, tuple(bound_release(r, terms.rows) for r in bound.releases))


def explain_batch(workload: Workload, kept: Kept | None, public: Public) -> WorkloadPlan:
    """Say what a batch would do and cost, given what is kept already."""
    known = {} if kept is None else _recalled(workload, kept, public)
    return describe_workload(workload, remaining(workload.plan, frozenset(known)).loss)


def answer_batch(
    workload: Workload, account: Account, public: Public, database: DuckDBPyConnection,
    randomness: Randomness,
) -> Results:
    """Recall, pay once, read, add noise, keep, finish: all questions or none.

    Guarantee: one charge, fsynced before any row is read, pays for every column that is not kept
    (planner/price.py); every answer is a function of those released columns, of kept ones and of
    public things. Whatever fails after the charge gives one fixed text, and the charge stands.
    """
    kept = account.kept
    known = _recalled(workload, kept, public)
    due = remaining(workload.plan, frozenset(known))
    if not due.events:
        described = describe_workload(workload, due.loss)
        return _results(workload, known, public, described, bool(workload.plan.releases))
    receipt = account.pay(due)
    with suppress(Exception):  # whatever it is, its text could quote a row; the charge stands
        described = describe_workload(workload, receipt.loss)
        keep_plan(kept, described, receipt.seq)
        reader = open_reader(due, receipt, account.ledger, database, kept.data_version)
        released = _filled(workload, known, reader, public, randomness)
        _keep(workload, known, released, kept, public, receipt.seq)
        return _results(workload, released, public, described, False)
    raise Broken  # after the handler has ended, so that no __context__ leads to the failure


def answer_batch_unpaid(
    workload: Workload, public: Public, database: DuckDBPyConnection,
    randomness: Randomness | None,
) -> Results:
    """Answer without a charge, on an engine opened for insecure testing only."""
    reader = open_unpaid(workload.plan, database, insecure_testing=True)
    released = _filled(workload, {}, reader, public, randomness)
    described = describe_workload(workload, workload.plan.loss)
    return _results(workload, released, public, described, False, is_private=False)


# ---- what is known and what is read ------------------------------------------------------


def _recalled(workload: Workload, kept: Kept, public: Public) -> Known:
    """Find the columns of the plan that are kept, at least as accurate as planned."""
    found = dict(recall(_FAMILIES, workload.section(0), kept, public, measured=True)[1])
    for number, one in enumerate(workload.asked, start=1):
        found |= recall(one.bound, workload.section(number), kept, public)[1]
    return found


def _filled(
    workload: Workload, known: Known, reader: Reader, public: Public,
    randomness: Randomness | None,
) -> Known:
    """Read what is missing and add noise to it: first for the families, then for each question."""
    bounds = (_FAMILIES, *(one.bound for one in workload.asked))
    done = known
    for number, (bound, (start, _)) in enumerate(zip(bounds, workload.sections, strict=True)):
        section = workload.section(number)
        _, done = fill(bound, section, done, reader, public, randomness, first=start)
    return done


def _keep(
    workload: Workload, before: Known, after: Known, kept: Kept, public: Public, charge: int
) -> None:
    """Keep what was measured, and what is put together from it under its own question's name."""
    keep(_FAMILIES, workload.section(0), before, after, kept, public, charge, measured=True)
    for number, one in enumerate(workload.asked, start=1):
        keep(one.bound, workload.section(number), before, after, kept, public, charge)
    for key, released in _together(workload, after).items():
        if released.deviation():
            keep_derived(key, released, kept, charge)


def _together(workload: Workload, known: Known) -> dict[str, Released]:
    """Put together every level that was measured or asked for, by the key it has by itself."""
    found: dict[str, Released] = {}
    for number, levels in enumerate(workload.levels):
        for marginal, key in levels.columns.items():
            recipe = Recipe(((number, 1.0),), tuple(sorted(marginal)), key)
            if not levels.family.finest:  # scaled parts round otherwise in a question by itself
                found[key] = put_together(recipe, workload.levels, known)
    for recipe in workload.recipes.values():
        if not any(workload.levels[number].family.finest for number, _ in recipe.parts):
            found.setdefault(recipe.key, put_together(recipe, workload.levels, known))
    return found


def _results(
    workload: Workload, known: Known, public: Public, described: WorkloadPlan, cached: bool,
    is_private: bool = True,
) -> Results:
    """Finish every question on what is released."""
    cost = described.cost if is_private else PrivacyLoss.zero()
    count = len(workload.asked)
    results = tuple(
        Result(_finished(workload, number, known, public), cost,
               cached and bool(workload.asked[number].bound.releases), plan, is_private,
               together=count)
        for number, plan in enumerate(described.questions)
    )
    return Results(results, cost, cached, described, None, is_private)


def _finished(workload: Workload, number: int, known: Known, public: Public) -> Table:
    """Run the rest of one question's SQL, with its columns put together."""
    view, one = view_of(workload, number), workload.asked[number]
    own = dict(known)
    for place, release in enumerate(view.releases):
        for i, column in enumerate(release.measures):
            recipe = workload.recipes.get(Place(number, place, i))
            if recipe is not None:
                own[column.key] = put_together(recipe, workload.levels, known)
    given = given_values(one.bound, view, own, public)
    table = finish(one.bound.rows, one.bound, view, own, public, given)
    if table is None:
        raise Broken
    return table


# ---- post-processing ----------------------------------------------------------------------


def put_together(recipe: Recipe, levels: tuple[Levels, ...], known: Known) -> Combined:
    """Return an asked column from the measured ones, with the noise it has of theirs.

    Guarantee: reads released columns only. Answers by the same levels agree with one another:
    totals are the sums of their parts, up to rounding of floats.
    """
    used = {key for number, _ in recipe.parts for key in levels[number].columns.values()}
    noises = {key: noise_at(known[key].mechanism, known[key].scale, known[key].step)
              for key in used}
    axes = sorted(recipe.axes)
    total = sum(factor * _marginal(levels[number], recipe.marginal, known)
                for number, factor in recipe.parts)
    cells = np.transpose(np.asarray(total), [axes.index(axis) for axis in recipe.axes])
    noise = noise_by(recipe, levels, noises)
    cells = _without_float_dust(cells, noise.deviation())
    sample = known[min(used)]
    family = levels[recipe.parts[0][0]].family
    keys = cells_by([family.values[axis] for axis in recipe.axes])
    return Combined(keys, tuple(cells.ravel().tolist()), sample.mechanism, noise.deviation(), 1.0,
                    noise=noise)


def _without_float_dust(cells: Floats, deviation: float) -> Floats:
    """Round to a grid far below the noise, so that a whole number of rows is one again."""
    if not deviation > 0:
        return cells
    grid = 2.0 ** (floor(log2(deviation)) - DUST_BITS)
    return np.asarray(np.round(cells / grid) * grid, dtype=np.float64)


def _marginal(levels: Levels, wanted: Marginal, known: Known) -> Floats:
    sizes = levels.family.sizes
    variances = {m: known[key].deviation() ** 2 for m, key in levels.columns.items()}
    measured = {
        m: Measured(
            np.asarray(known[levels.columns[m]].numbers(), dtype=np.float64).reshape(
                [sizes[i] for i in sorted(m)]
            ),
            variances[m],
        )
        for m in levels.columns
    }
    return combined(wanted, sizes, measured)
