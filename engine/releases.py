"""A plan and what is already known of it in, all of its released columns out.

A question may use one released answer inside another (a mean as a threshold): releases are filled
in order, and an answer that is complete becomes a public constant for those that follow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from engine.answers import Answers, StoredAnswer
from engine.database import Desk
from engine.errors import Broken
from engine.execution import Reader
from engine.history import combined
from engine.postprocess import ReleasedTable, Table, postprocess
from engine.release import Combined, Released, add_noise, choose_keys, from_payload, to_payload
from engine.winner import named_winners
from mechanisms.randomness import Randomness
from planner.adaptive import Ends
from planner.bind import Bound, Rows
from planner.bounded_sql import given_sources
from planner.canonical import key_of
from planner.emit import GivenValues
from planner.narrowing import Key
from planner.price import Mechanism, NoisePlan, Priced, PricedRelease, adapted
from planner.relation import Release, walk_relations
from planner.uncertainty import CONFIDENCE

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Known = Mapping[str, Released]


@dataclass(frozen=True, slots=True)
class Public:
    """Where post-processing happens: the desk, and the public tables of the snapshot."""

    desk: Desk
    database: DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Kept:
    """The answers that are already out for one version of the data."""

    answers: Answers
    data_version: str


def recall(
    bound: Bound, plan: NoisePlan, kept: Kept, public: Public, *, measured: bool = False
) -> tuple[NoisePlan, Known]:
    """Find what is already answered at least as accurately as this plan would.

    Where that answers a release's pilot, the plan comes back with the bounds that it chose.

    A column over chosen keys is given again only beside the same choice of keys, and one that
    used another answer only beside the same answer. Columns that no row can move are known.
    Of several pilots that are good enough the first one counts for ever: a better one that
    somebody buys later must not move the bounds of a question that was answered already.
    With `measured`, the columns are to be combined: only numbers with noise of their own are
    found, not those that were put together from others.
    """
    known: dict[str, Released] = {}
    pilots = _pilots_of(plan)
    for place in range(len(plan.releases)):
        plan, release = _with_chosen_bounds(plan, place, known)
        given = given_values(bound, plan, known, public)
        if release.pilot is not None or not _complete(bound, release, given):
            continue
        uses = _uses(release, given)
        chosen = ""
        if release.selection is not None:
            key = key_of(release.selection.key, uses)
            found = _find(kept, key, release.selection)
            if found is None:
                continue
            known[release.selection.key] = found
            chosen = _fingerprint(found)
        for column in release.measures:
            if column.mechanism is Mechanism.EXACT:
                known[column.key] = add_noise(column, keys_of(release, known), {}, None)
                continue
            is_pilot = release.bounded.release.source in pilots
            key = key_of(column.key, chosen, uses)
            find = _find_measured if measured else _find
            found = find(kept, key, column, is_pilot)
            if found is not None:
                known[column.key] = found
    return named_winners(plan, known, CONFIDENCE), known


def _with_chosen_bounds(
    plan: NoisePlan, place: int, known: Known
) -> tuple[NoisePlan, PricedRelease]:
    """Return the plan, and the release at `place`, with the bounds its pilot chose, if known."""
    planned = plan.releases[place]
    release = adapted(plan, planned, numbers_of(known))
    if release is planned:
        return plan, planned
    releases = (*plan.releases[:place], release, *plan.releases[place + 1 :])
    return replace(plan, releases=releases), release


def numbers_of(known: Known) -> Mapping[str, tuple[int | float, ...]]:
    """Return released columns as the planner reads them: grid integers by key."""
    return {key: released.values for key, released in known.items()}


def _find_measured(kept: Kept, key: str, column: Priced, first: bool) -> Released | None:
    """Find the most accurate kept column that has noise of its own."""
    found = [a for name in (key, _measured_key(key))
             for a in kept.answers.find(name, kept.data_version) if a.deviation <= column.deviation]
    columns = (from_payload(a.payload)
               for a in sorted(found, key=lambda a: (a.deviation, a.charge_seq)))
    return next((c for c in columns if not isinstance(c, Combined)), None)


def _measured_key(key: str) -> str:
    """Return where a column is kept that was measured for others to be put together from it.

    Whoever asks for it by itself gets what was put together: that is more accurate.
    """
    return key_of("measured", key)


def _find(kept: Kept, key: str, column: Priced, first: bool = False) -> Released | None:
    find = kept.answers.find_first if first else kept.answers.find_best
    stored = find(key, kept.data_version, column.deviation)
    return None if stored is None else from_payload(stored.payload)


def fill(
    bound: Bound, plan: NoisePlan, known: Known, reader: Reader, public: Public,
    randomness: Randomness | None, pilot_randomness: Randomness | None = None, *,
    first: int = 0, kept: Kept | None = None,
) -> tuple[NoisePlan, Known]:
    """Read what is missing and add noise to it, each column once however often it is used.

    Returns the plan with the bounds that pilots chose. `randomness` None (testing only) adds no
    noise, except to pilots where `pilot_randomness` is given. `first` is the place of the plan's
    first release among those of the reader. What was `kept` of the same cells makes a new
    release more exact (history.py); without it every column has noise of its own alone.
    """
    done = dict(known)
    pilots = _pilots_of(plan)
    for n in range(len(plan.releases)):
        given = given_values(bound, plan, done, public)
        exact = reader.run(first + n, numbers_of(done), given)
        plan, release = _with_chosen_bounds(plan, n, done)
        noise = randomness
        if noise is None and release.bounded.release.source in pilots:
            noise = pilot_randomness
        if release.selection is not None and release.selection.key not in done:
            done[release.selection.key] = choose_keys(release, exact, noise)
        keys = keys_of(release, done)
        for place, column in enumerate(release.measures):
            if column.key not in done:
                values = exact.columns.get(place, {})
                fresh = add_noise(column, keys, values, noise)
                earlier = _kept_best(kept, _kept_key(release, column, done, given))
                done[column.key] = combined(fresh, earlier)
    return named_winners(plan, done, CONFIDENCE), done


def _kept_best(kept: Kept | None, key: str) -> Released | None:
    """Return the most exact kept answer to the same cells; it combines all before it."""
    found = () if kept is None else kept.answers.find(key, kept.data_version)
    return from_payload(found[0].payload) if found else None


def _kept_key(
    release: PricedRelease, column: Priced, known: Known, given: GivenValues
) -> str:
    """Name a column beside the choice of keys and the given answers that it goes with."""
    selection = release.selection
    chosen = "" if selection is None else _fingerprint(known[selection.key])
    return key_of(column.key, chosen, _uses(release, given))


def _pilots_of(plan: NoisePlan) -> frozenset[int]:
    """Return the numbers of the releases that are asked to choose another's bounds."""
    return frozenset(
        first.release.source for release in plan.releases if release.pilot is not None
        for first in release.pilot.releases
    )


def keep(
    bound: Bound, plan: NoisePlan, before: Known, after: Known, kept: Kept, public: Public,
    charge: int, *, measured: bool = False,
) -> None:
    """Keep what was just released, so that the same question is free for everybody."""
    for release in plan.releases:
        uses = _uses(release, given_values(bound, plan, after, public))
        chosen = ""
        if release.selection is not None:
            chosen = _fingerprint(after[release.selection.key])
            _store(kept, release.selection, key_of(release.selection.key, uses), before, after,
                   charge)
        for column in release.measures:
            if column.mechanism is not Mechanism.EXACT:
                key = key_of(column.key, chosen, uses)
                _store(kept, column, _measured_key(key) if measured else key, before, after,
                       charge)


def keep_derived(key: str, released: Released, kept: Kept, charge: int) -> None:
    """Keep an answer that was put together, as if its column had been asked by itself."""
    kept.answers.keep(StoredAnswer(
        key_of(key, "", repr([])), kept.data_version, released.deviation(), to_payload(released),
        charge,
    ))


class Described(Protocol):
    """What a charge pays for, in words and numbers."""

    @property
    def chosen(self) -> tuple[str, ...]:
        """What pilots chose."""

    def to_dict(self) -> dict[str, object]:
        """Return it as plain values."""


def keep_plan(kept: Kept, plan: Described, charge: int) -> None:
    """Keep what a charge pays for beside it: bounds, sensitivities, noise, in words and numbers.

    It is kept before a row is read, and once more where a pilot then chose bounds.
    """
    text = json.dumps(plan.to_dict(), separators=(",", ":"), default=str)
    kept.answers.keep(StoredAnswer(
        _plan_key(charge, bool(plan.chosen)), kept.data_version, 0.0, text.encode(), charge
    ))


def stored_plan(kept: Kept, charge: int) -> dict[str, object] | None:
    """Return the plan kept beside a charge, with the bounds that were chosen; or None."""
    for has_chosen in (True, False):
        found = kept.answers.find(_plan_key(charge, has_chosen), kept.data_version)
        if found:
            return json.loads(found[0].payload)  # type: ignore[no-any-return]
    return None


def _plan_key(charge: int, has_chosen: bool) -> str:
    return f"plan of charge {charge}{', as chosen' if has_chosen else ''}"


def _store(
    kept: Kept, column: Priced, key: str, before: Known, after: Known, charge: int
) -> None:
    if column.key not in before:
        released = after[column.key]
        is_mean = isinstance(released, Combined)
        deviation = released.deviation() if is_mean else column.deviation
        kept.answers.keep(StoredAnswer(
            key, kept.data_version, deviation, to_payload(released), charge
        ))


def given_values(bound: Bound, plan: NoisePlan, known: Known, public: Public) -> GivenValues:
    """Compute the answers that are used further in, as far as their releases are known."""
    given: dict[int, tuple[tuple[object, ...], ...]] = {}
    for entry in bound.givens:
        table = finish(entry.rows, bound, plan, known, public, given)  # type: ignore[arg-type]
        if table is not None:
            given[entry.source] = table.rows
    return given  # type: ignore[return-value]


def finish(
    rows: Rows, bound: Bound, plan: NoisePlan, known: Known, public: Public,
    given: GivenValues, confidence: float = CONFIDENCE,
) -> Table | None:
    """Post-process the releases below some rows, or return None where one is not known yet."""
    below = {n.source for n in walk_relations(rows.relation) if isinstance(n, Release)}
    releases = [r for r in plan.releases if r.bounded.release.source in below]
    if any(column.key not in known for r in releases for column in _columns(r)):
        return None
    tables = tuple(
        ReleasedTable(
            r.bounded.release.source, keys_of(r, known),
            tuple(known[column.key] for column in r.measures),
            tuple(column.bounded.measure.center for column in r.measures),
            tuple(_for_each_key(cut, len(keys_of(r, known))) for cut in r.cut),
            frozenset(i for i, column in enumerate(r.measures)
                      if column.bounded.strategy.truncations > 1),
        )
        for r in releases
    )
    return postprocess(rows, bound.releases, tables, public.desk, public.database, given,
                       confidence)


def _for_each_key(cut: Ends, keys: int) -> Ends:
    """Spread what a clip takes over the groups: the pilot saw them all together."""
    return cut[0] / max(keys, 1), cut[1] / max(keys, 1)


def keys_of(release: PricedRelease, known: Known) -> tuple[Key, ...]:
    """Return the key set of a release: public, or as it was chosen."""
    if release.bounded.keys is not None or release.selection is None:
        return release.bounded.keys or ()
    return known[release.selection.key].keys


def names_of(plan: NoisePlan) -> tuple[str, ...]:
    """Return the keys of all columns of a plan."""
    return tuple(column.key for release in plan.releases for column in _columns(release))


def _columns(release: PricedRelease) -> tuple[Priced, ...]:
    chosen = () if release.selection is None else (release.selection,)
    return (*release.measures, *chosen)


def _complete(bound: Bound, release: PricedRelease, given: GivenValues) -> bool:
    """Return whether every answer that a release uses is there."""
    used = given_sources(release.bounded)
    return all(entry.source in given for entry in bound.givens if entry.source in used)


def _uses(release: PricedRelease, given: GivenValues) -> str:
    """Name the given answers a release uses, by their values."""
    used = given_sources(release.bounded)
    return repr(sorted((source, rows) for source, rows in given.items() if source in used))


def _fingerprint(chosen: Released) -> str:
    """Name a released choice of keys, so that columns are kept beside the same choice only."""
    return key_of(repr(chosen.keys))


def finished(bound: Bound, plan: NoisePlan, known: Known, public: Public) -> Table:
    """Run the rest of the SQL on what is released."""
    given = given_values(bound, plan, known, public)
    table = finish(bound.rows, bound, plan, known, public, given)
    if table is None:
        raise Broken
    return table
