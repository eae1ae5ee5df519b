"""Record and replay: what every primitive was given on one database, replayed on a neighbour.

After Re:cord-play (Cebere et al. 2026). The engine's own road runs on a database D. Every place
where private numbers meet noise is recorded: what is public about it (mechanism, scale, stated
sensitivity, key set, the statement that read the rows), the exact integers it was given, and what
came out. On a neighbour D' the same road runs again, and each primitive's output is replaced by
the recorded one: by then it is public. Then

- the order of primitives, everything public about them and every statement must be the same, for
  a difference would be control flow that depends on a row;
- the exact integers must lie within the stated sensitivity, and noise must be added to them;
- the whole result, rows and all, must be the same, because nothing of D' but the primitives'
  inputs may reach it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import engine.accuracy
import engine.execution
import engine.releases
import engine.split
import models.class_weights
import models.descent
import models.evaluation
import models.forest
import models.importance
import models.marginal_table
import models.statistics
import models.tuning
from engine import Engine, Refused
from planner.bounded_sql import SELECTION
from planner.price import Mechanism
from tests.engine.replay import flat

Vector = dict[tuple[Any, ...], float]
ROADS = (engine.releases, engine.accuracy, engine.split)  # each adds noise and chooses keys


@dataclass(frozen=True, slots=True)
class Primitive:
    """One meeting of private numbers with noise."""

    public: tuple[Any, ...]
    l1: float
    l2_squared: float
    given: Vector = field(repr=False)
    out: Any = field(repr=False)


@dataclass(slots=True)
class Recording:
    """What one question or training run did on one database."""

    primitives: list[Primitive] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    result: Any = None
    problems: list[str] = field(default_factory=list)


def record(run: Callable[[], Any], like: Recording | None = None) -> Recording:
    """Run something and record its primitives; with `like`, replay that recording's outputs."""
    found = Recording()
    with _watched(found, like):
        found.result = run()
    return found


def differences(one: Recording, two: Recording) -> Iterator[str]:
    """Say where a replay on a neighbour differs from the recording by more than is stated."""
    yield from two.problems
    if one.statements != two.statements:
        yield "other statements were run"
    if len(one.primitives) != len(two.primitives):
        yield f"{len(one.primitives)} primitives, replayed {len(two.primitives)}"
    for place, (a, b) in enumerate(zip(one.primitives, two.primitives, strict=False)):
        if a.public[-1] is True:
            yield f"primitive {place} was released without noise: {a.public}"
        if a.public != b.public:
            yield f"primitive {place}: {a.public} became {b.public}"
        apart = [abs(a.given.get(k, 0) - b.given.get(k, 0)) for k in a.given.keys() | b.given]
        if sum(apart) > a.l1:
            yield f"primitive {place}: L1 distance {sum(apart)}, stated {a.l1}"
        if sum(x * x for x in apart) > a.l2_squared:
            yield f"primitive {place}: squared L2 distance {sum(x * x for x in apart)}, " \
                  f"stated {a.l2_squared}"
    if one.result != two.result:
        yield "with the same released numbers the result is another one"


def asked(engine_: Engine, sql: str, like: Recording | None = None, **settings: Any) -> Recording:
    """Record one question; its result is all that an analyst holds."""

    def run() -> Any:
        try:
            result = engine_.query(sql, **{"epsilon": 0.5, **settings})
        except Refused as refusal:
            return str(refusal)
        except Exception as error:  # a failure on one side only is a difference as well
            return f"failed: {type(error).__name__}"
        return (result.columns, result.table.types, repr(result.rows), repr(result.intervals),
                str(result.plan), repr(result.target))

    return record(run, like)


def asked_together(
    engine_: Engine, sqls: Sequence[str], like: Recording | None = None, **settings: Any
) -> Recording:
    """Record several questions at one price; the result is all that an analyst holds."""

    def run() -> Any:
        try:
            found = engine_.query_many(sqls, **{"epsilon": 1, **settings})
        except Exception as error:
            return f"failed: {type(error).__name__}"
        return str(found.plan), [
            (r.columns, r.table.types, repr(r.rows), repr(r.intervals), str(r.plan)) for r in found
        ]

    return record(run, like)


def trained(
    engine_: Engine, sql: str, like: Recording | None = None, **settings: Any
) -> Recording:
    """Record one training run; its result is the parameters and the metrics."""

    def run() -> Any:
        model = engine_.train(sql, **settings)
        return model.parameters.tobytes(), None if model.metrics is None else (
            model.metrics.to_dict())

    return record(run, like)


def searched(
    engine_: Engine, sql: str, like: Recording | None = None, **settings: Any
) -> Recording:
    """Record one search for settings; its result is all that an analyst holds."""

    def run() -> Any:
        model = engine_.tune(sql, **settings)
        facts = {name: x for name, x in model.card.facts.items()
                 if name not in ("trained", "data version", "policy")}
        metrics = None if model.metrics is None else model.metrics.to_dict()
        return model.parameters.tobytes(), metrics, str(model), facts

    return record(run, like)


# ---- the places ----------------------------------------------------------------------------


@contextmanager
def _watched(found: Recording, like: Recording | None) -> Iterator[None]:
    """Watch every place where noise is added, and every statement over patients' rows."""

    def met(public: tuple[Any, ...], l1: float, l2_squared: float, given: Vector,
            out: Callable[[], Any]) -> Any:
        place = len(found.primitives)
        if like is None:
            outcome = out()
        elif place < len(like.primitives):
            outcome = like.primitives[place].out
        else:
            found.problems.append(f"primitive {place} is one more than was recorded")
            outcome = out()
        found.primitives.append(Primitive(public, l1, l2_squared, given, outcome))
        return outcome

    places = {
        **{(module, "add_noise"): _noise(met) for module in ROADS},
        **{(module, "choose_keys"): _choice(met) for module in ROADS},
        (engine.accuracy, "_draw"): _levels(met), (engine.split, "draw"): _levels(met),
        (models.descent, "noised"): _step(met),
        (models.importance, "noised"): _step(met, "means"),
        (models.tuning, "noised"): _step(met, "score"),
        (models.importance, "noised_counts"): _fine("importance", met),
        (models.evaluation, "noised_counts"): _fine("metrics", met),
        (models.class_weights, "noised_counts"): _fine("class weights", met),
        (models.statistics, "noised_counts"): _fine("sums", met),
        (models.forest, "noised_counts"): _fine("leaves", met),
        (models.marginal_table, "gaussian"): _counted("counts", "cells", met),
    }
    with pytest.MonkeyPatch.context() as patch:
        for (module, name), wrapped in places.items():
            patch.setattr(module, name, wrapped(getattr(module, name)))
        read = engine.execution.run_statement

        def reading(connection: Any, sql: str, *rest: Any) -> Any:
            found.statements.append(sql)
            return read(connection, sql, *rest)

        patch.setattr(engine.execution, "run_statement", reading)
        yield


def _facts(column: Any) -> tuple[Any, ...]:
    return (column.key, column.mechanism, column.scale, column.grid, column.l1, column.l2_squared)


def _noise(met: Any) -> Any:
    def wrap(true: Any) -> Any:
        def add_noise(column: Any, keys: Any, exact: Any, randomness: Any) -> Any:
            inside = {key: exact[key] for key in keys if key in exact}
            plain = randomness is None and column.mechanism is not Mechanism.EXACT
            public = ("noise", *_facts(column), keys, plain)
            return met(public, column.l1, column.l2_squared, flat(column, inside),
                       lambda: true(column, keys, exact, randomness))

        return add_noise

    return wrap


def _choice(met: Any) -> Any:
    def wrap(true: Any) -> Any:
        def choose_keys(release: Any, exact: Any, randomness: Any) -> Any:
            chosen = release.selection
            public = ("keys", *_facts(chosen), release.threshold, randomness is None)
            return met(public, chosen.l1, chosen.l2_squared, dict(exact.columns[SELECTION]),
                       lambda: true(release, exact, randomness))

        return choose_keys

    return wrap


def _levels(met: Any) -> Any:
    """Accuracy targets and divided questions: each column is drawn at many levels at once."""

    def wrap(true: Any) -> Any:
        def draw(*given_to: Any) -> Any:
            drawn = true(*given_to)
            for key, cells in drawn.cells.items():
                given = dict(zip(cells.keys, cells.exact, strict=True))
                scales = cells.ladder.scales if hasattr(cells, "ladder") else cells.scales
                out = met(("levels", *_facts(cells.column), scales, cells.keys),
                          cells.column.l1, cells.column.l2_squared, given, lambda c=cells: c)
                drawn = replace(drawn, cells={**drawn.cells, key: out})
            return drawn

        return draw

    return wrap


def _step(met: Any, name: str = "step") -> Any:
    """Training: the sum of the patients' gradients of one step, of L2 sensitivity 1."""

    def wrap(true: Any) -> Any:
        def noised(total: Any, multiplier: float, randomness: Any) -> Any:
            given = {(i,): float(x) for i, x in enumerate(np.nan_to_num(total))}
            return met((name, len(total), multiplier), np.inf, 1.0, given,
                       lambda: true(total, multiplier, randomness))

        return noised

    return wrap


def _reach(place: dict[str, Any]) -> tuple[float, float]:
    """Return how far one patient moves what is counted, in L1 and in L2 norm.

    By the caller's `plan.distance` where there is a plan; else it is once in one cell.
    """
    return (np.inf, float(place["plan"].distance)) if "plan" in place else (1.0, 1.0)


def _fine(name: str, met: Any) -> Any:
    """Training: whole numbers that get noise of a fine grid."""

    def wrap(true: Any) -> Any:
        def noised_counts(counts: Any, sigma: float, randomness: Any) -> Any:
            l1, l2 = _reach(sys._getframe(1).f_locals)
            given = {(i,): int(n) for i, n in enumerate(counts.ravel())}
            # Drawn in a replay too: what is simulated later comes from the same randomness.
            noisy = true(counts, sigma, randomness)
            return met((name, counts.shape, sigma), l1, l2**2, given, lambda: noisy)

        return noised_counts

    return wrap


def _counted(name: str, local: str, met: Any) -> Any:
    """Tables: whole numbers that noise is drawn for; `local` is what the caller calls them."""

    def wrap(true: Any) -> Any:
        def sample(sigma: float, size: int, randomness: Any) -> Any:
            place = sys._getframe(1).f_locals
            cells = place[local].ravel()
            l1, l2 = _reach(place)
            given = {(i,): int(n) for i, n in enumerate(cells)}
            # Drawn in a replay too: what is simulated later comes from the same randomness.
            drawn = true.sample(sigma, size, randomness)
            noisy = met((name, place[local].shape, sigma), l1, l2**2, given, lambda: cells + drawn)
            return noisy - cells

        return SimpleNamespace(sample=sample, rho=true.rho, epsilon_for=true.epsilon_for,
                               multiplier_for=true.multiplier_for)

    return wrap


__all__ = ["Primitive", "Recording", "asked", "asked_together", "differences", "record",
           "searched", "trained"]
