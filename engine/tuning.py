"""The one visible road of a search for settings: plan, price, charge, run a secret number of times.

Guarantee: what leaves is the best run's model, its noisy score, and counts of patients who chose
nothing: one release of plan.event. The number of runs, their candidates, models and scores are
forgotten: with the number of runs known, the price would be that of all of them. Nothing is
written or shown between the first run and the last; what is left is the time that a search takes
(docs/known-limits.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from engine.errors import Broken
from engine.execution import RowReader, open_paid_rows, open_rows, open_unpaid_rows
from engine.model_card import card_of
from engine.training import (
    Fitted,
    Order,
    Progress,
    Request,
    Site,
    check_libraries,
    fit_by_descent,
    own_architecture,
    plan_training,
)
from engine.training_runs import RunFolder, run_folder
from mechanisms.event import to_json
from mechanisms.loss import PrivacyLoss
from mechanisms.randomness import Randomness
from planner.canonical import key_of
from planner.refusal import Refused

if TYPE_CHECKING:
    from fractions import Fraction

    from models.encoding import Encoding
    from models.importance import Findings
    from models.model import Model
    from models.run import RunPlan
    from models.table import Places, Table
    from models.tuning import TuningPlan

# Places of a search's randomness; each run has a key of its own, and places in that.
COUNT, PARTS, HALVES, MEASURES, RUNS = 2**41, 2**41 + 1, 2**41 + 2, 2**41 + 3, 2**42
DRAW, SCORE = 2**41 + 4, 2**41 + 5


@dataclass(frozen=True, slots=True)
class Search:
    """A bound and priced search: what is charged, and what the charge pays for."""

    plan: TuningPlan
    orders: tuple[Order, ...]  # one for each candidate

    @property
    def statement(self) -> str:
        """The one statement that all candidates read."""
        return self.orders[0].statement

    @property
    def plan_hash(self) -> str:
        """Name exactly what is paid for: the statement, the candidates and all noise."""
        return key_of("tuning", self.statement, repr(self.plan.facts()), repr(self.plan.event))


@dataclass(frozen=True, slots=True)
class _Best:
    """The best run so far. Private until the last run has ended."""

    place: int
    score: float
    parameters: Any
    found: Findings | None


def plan_search(request: Request, candidates: object, law: object, runs: object,
                site: Site) -> Search:
    """Text and candidates to a priced search: reads no row, spends nothing."""
    from models.run import RunPlan
    from models.tuning import plan_tuning, read_candidates, read_law

    named, wanted = read_candidates(candidates), read_law(law, runs)
    orders: tuple[Order, ...] = ()

    def planned(target: Fraction) -> tuple[RunPlan, ...]:
        nonlocal orders
        priced = replace(request, epsilon=target, law=wanted)
        orders = tuple(_candidate(priced, dict(one), site) for one in named)
        return tuple(order.run for order in orders if isinstance(order.run, RunPlan))

    plan = plan_tuning(named, planned, wanted, request.epsilon, request.delta, site.filter.order)
    return Search(plan, orders)


def _candidate(request: Request, changes: dict[str, Any], site: Site) -> Order:
    model = changes.pop("model", request.model)
    order = plan_training(replace(request, model=model,
                                  options={**request.options, **changes}), site)
    if order.family is None:
        raise Refused("model", f"{model} is fitted to one noisy vector, and a search is among "
                      "models that descend", "logistic, linear, mlp, cnn or a Keras model")
    return order


def tune(search: Search, request: Request, site: Site, who: str, quota: Any,
         progress: Progress | None = None, seq: int | None = None) -> Model:
    """Pay once, then search: the road of `Engine.tune`. With `seq` go on with a paid search.

    Raises Refused where that charge paid for another search, or its folder is lost.
    """
    if site.ledger is None:
        if seq is not None:
            raise Refused("testing", "a test run is not charged, so it cannot be resumed", "tune()")
        reader = open_unpaid_rows(search.statement, site.database, insecure_testing=True)
        return _search(search, reader, site, site.randomness.bytes(32), None, PrivacyLoss.zero(),
                       None)
    for order in search.orders:
        check_libraries(order)
    if seq is not None:
        return _resumed(search, site, seq)
    plan = search.plan
    receipt = site.ledger.charge(
        plan.cost, analyst=who, quota=quota, events_json=to_json((plan.event,)), sql=request.sql,
        plan_hash=search.plan_hash, policy_hash=site.policy.policy_hash,
        data_version=site.snapshot.data_version,
    )
    with suppress(Exception):  # whatever it is, its text could quote a row; the charge stands
        folder = run_folder(site.directory, site.stem, receipt.seq)
        with folder.alone():
            key = folder.draw_key()
            reader = open_rows(search.statement, search.plan_hash, receipt, site.ledger,
                               site.database, site.snapshot.data_version)
            if progress is not None:
                progress("searching; how far it is would tell how many runs there are", 0, 1)
            return _search(search, reader, site, key, folder, plan.cost, receipt.seq)
    raise Broken


def _resumed(search: Search, site: Site, seq: int) -> Model:
    """Do a paid search again from its key, which ends in the same model: free."""
    ledger = site.ledger
    charge = None if ledger is None else next(
        (c for c in ledger.history() if c.seq == seq), None)
    if ledger is None or charge is None or (charge.plan_hash, charge.data_version) != (
        search.plan_hash, site.snapshot.data_version
    ):
        raise Refused("model", f"charge {seq} did not pay for this search on this data",
                      "the number of the charge, and the same call")
    folder = run_folder(site.directory, site.stem, seq)
    if not (folder.has_key or folder.is_finished):
        raise Refused("model", f"the folder of the search that charge {seq} paid is lost; begun "
                      "anew, the charge would buy a second model", "tune() without resume")
    with suppress(Exception), folder.alone():
        if folder.is_finished:
            from models.model import Model

            return Model.load(folder.model)
        reader = open_paid_rows(search.statement, search.plan_hash, seq, ledger, site.database,
                                site.snapshot.data_version)
        return _search(search, reader, site, folder.key(), folder, search.plan.cost, seq)
    raise Broken


def _search(
    search: Search, reader: RowReader, site: Site, key: bytes, folder: RunFolder | None,
    cost: PrivacyLoss, seq: int | None,
) -> Model:
    """Split the patients in three by coins, repeat the run, keep the best, measure it.

    Guarantee: each run's randomness comes from a key of its own, so the runs are independent
    draws of one mechanism on the patients that train and choose. The coins that put a patient in
    training, choice or measurement are the same for all runs and depend on no data: whatever they
    show, the price is that of the patient's branch, and of the dearest for their mixture. The
    order is that of the noisy scores; of equal ones the first counts, which is a fair choice.
    """
    from models.evaluation import evaluate
    from models.importance import with_scales
    from models.table import split_units

    plan = search.plan
    began = datetime.now(UTC)  # the card says when it began: its end would tell how long it took
    tables: dict[Encoding, Table] = {}
    table = _table(tables, search, 0, reader)
    share = plan.runs[0].settings.holdout
    training, held = split_units(table.units, share, Randomness.keyed(key, PARTS))
    measuring, choosing = _halves(held, Randomness.keyed(key, HALVES))
    best: _Best | None = None
    for i in range(plan.law.sample(Randomness.keyed(key, COUNT))):
        own = Randomness.keyed(key, RUNS + i).bytes(32)
        place = Randomness.keyed(own, DRAW).integer_below(len(plan.runs))
        table = _table(tables, search, place, reader)
        found, noisy = _run_once(search, place, table, training, choosing, own)
        if best is None or noisy > best.score:
            best = _Best(place, noisy, found.parameters, found.found)
    if best is None:
        raise Broken
    table = _table(tables, search, best.place, reader)
    if best.found is not None:
        table = with_scales(table, plan.runs[best.place].encoding, best.found.scales)
    family = search.orders[best.place].family
    if family is None:
        raise Broken
    metrics = evaluate(family.network, best.parameters, table, measuring, plan.measuring,
                       Randomness.keyed(key, MEASURES))
    return _kept(search, best, metrics, site, folder, cost, seq, began)


def _run_once(
    search: Search, place: int, table: Table, training: Places, choosing: Places, key: bytes
) -> tuple[Fitted, float]:
    """Train one candidate on some patients and score it on others: the repeated mechanism."""
    from models.tuning import score, scoring

    run, family = search.plan.runs[place], search.orders[place].family
    if family is None:
        raise Broken
    found = fit_by_descent(run, family, table, training, key)
    return found, score(family.network, found.inside, found.table, choosing, scoring(run),
                        search.plan.choosing, Randomness.keyed(key, SCORE))


def _halves(held: Places, randomness: Randomness) -> tuple[Places, Places]:
    from models.table import split_units
    from models.tuning import CHOOSING

    measuring, choosing = split_units(len(held), CHOOSING, randomness)
    return held[measuring], held[choosing]


def _table(
    tables: dict[Encoding, Table], search: Search, place: int, reader: RowReader
) -> Table:
    """Return the rows as a candidate's network sees them: read once for each way of seeing."""
    from models.table import gather

    order = search.orders[place]
    encoding = search.plan.runs[place].encoding
    if encoding not in tables:
        tables[encoding] = gather(reader.chunks(), encoding, order.view.rows)
    return tables[encoding]


def _kept(
    search: Search, best: _Best, metrics: Any, site: Site, folder: RunFolder | None,
    cost: PrivacyLoss, seq: int | None, began: datetime,
) -> Model:
    """Make the model of a finished search, store it, and mark the search as ended."""
    from models.model import Card, Model
    from models.tuning import Tuned, scoring

    plan, order = search.plan, search.orders[best.place]
    run = plan.runs[best.place]
    if order.family is None:
        raise Broken
    tuned = Tuned(_plain(dict(plan.candidates[best.place])), best.score,
                  scoring(run) / plan.choosing, len(plan.candidates), round(plan.law.mean, 6))
    card = card_of(order.view, run, site.policy, site.snapshot.data_version, cost, metrics, seq)
    made = Model(run.family, run.encoding, run.settings, best.parameters, cost,
                 Card({**card.facts, "trained": began.isoformat(timespec="seconds"),
                       "chosen": str(tuned)}), metrics, site.ledger is not None,
                 None if best.found is None else tuple(best.found.scales.tolist()),
                 own_architecture(run, order.family),
                 None if best.found is None else tuple(best.found.worth.tolist()), tuned)
    if folder is not None:
        made.save(folder.model)
        folder.finish()
    return made


def _plain(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Return a choice as JSON keeps it; a model of the user's own by the name of its class."""
    return {
        name: value if isinstance(value, str | int | float | bool | None)
        else repr(value) if isinstance(value, list | tuple | dict) else type(value).__name__
        for name, value in choice.items()
    }
