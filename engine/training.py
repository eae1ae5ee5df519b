"""The one visible road of a training run: bind the view, price, charge, read, descend, keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import Broken
from engine.execution import RowReader, open_paid_rows, open_rows, open_unpaid_rows
from engine.ledger import Ledger
from engine.model_card import card_of
from engine.training_runs import RunFolder, run_folder
from engine.training_statistics import fit_forest, fit_statistics
from mechanisms.event import to_json
from mechanisms.filter import Filter
from mechanisms.loss import PrivacyLoss
from mechanisms.randomness import Randomness
from mechanisms.repetition import Repetitions
from planner.canonical import key_of
from planner.policy import Policy
from planner.refusal import Refused
from planner.sufficient import products_statement
from planner.training_view import TrainingView, bind_view

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from engine.snapshot import Snapshot
    from models.descent import State, Vector
    from models.evaluation import Evaluation
    from models.family import Family
    from models.forest import ForestPlan
    from models.importance import Findings
    from models.layers import Architecture
    from models.model import Model
    from models.run import RunPlan
    from models.statistics import StatisticsPlan
    from models.table import Places, Table

Progress = Callable[[str, int, int], None]
# Places of a run's randomness beside those of its steps.
SPLIT, METRICS, IMPORTANCE, CLASSES = 2**40, 2**40 + 1, 2**40 + 2, 2**40 + 8
CHECKPOINTS = 20  # how often a run is written down on its way


@dataclass(frozen=True, slots=True)
class Site:
    """What a training run needs of an engine: one version of everything."""

    policy: Policy
    snapshot: Snapshot
    database: DuckDBPyConnection
    ledger: Ledger | None
    filter: Filter
    randomness: Randomness
    directory: Path
    stem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked of `engine.train`, checked by the stages that use it."""

    sql: str
    label: str
    model: object
    epsilon: Fraction
    delta: Fraction
    rows: int | None = None
    units: int | str | None = None
    dialect: str = "duckdb"
    buckets: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    law: Repetitions | None = None  # of a search, whose best run costs epsilon


@dataclass(frozen=True, slots=True)
class Order:
    """A bound and priced run: what is charged, and what the charge pays for."""

    view: TrainingView
    run: RunPlan | StatisticsPlan | ForestPlan
    family: Family | None  # None where one noisy vector is asked, and nothing descends
    statement: str

    @property
    def plan_hash(self) -> str:
        """Name exactly what is paid for: the statement, the run and its noise."""
        return key_of("training", self.statement, repr(self.run.facts()), repr(self.run.event))


def plan_training(request: Request, site: Site) -> Order:
    """Text to priced run: reads no row, spends nothing."""
    from models.encoding import Encoding
    from models.family import family_of
    from models.forest import plan_forest
    from models.run import plan_run, settings_from
    from models.statistics import is_statistics, plan_statistics

    view = bind_view(request.sql, site.snapshot.catalog, request.label, request.rows,
                     dialect=request.dialect, buckets=request.buckets)
    settings = settings_from(request.options)
    encoding = Encoding(view.features, view.label)
    if settings.loss is not None:
        encoding = encoding.with_counts()
    if request.model == "forest":
        grown = plan_forest(encoding, settings, view.rows, public_units(request, site),
                            request.epsilon, request.delta, site.filter.order)
        return Order(view, grown, None, view.statement)
    if settings.trees is not None or settings.depth is not None:
        raise Refused("model", f"a {request.model} model has no trees", "model='forest'")
    if is_statistics(request.model, settings):
        asked = plan_statistics(str(request.model), view, encoding, settings,
                                public_units(request, site), request.epsilon, request.delta,
                                site.filter.order)
        return Order(view, asked, None, products_statement(view, asked.products))
    family = family_of(request.model, encoding, settings)
    network = family.network
    run = plan_run(family.name, network.encoding, settings, family.defaults, network.size,
                   public_units(request, site), request.epsilon, request.delta, site.filter.order,
                   family.described, network.groups, request.law)
    return Order(view, run, family, view.statement)


def public_units(request: Request, site: Site) -> int:
    """Return the public number of patients. Wrong, it costs accuracy and never privacy."""
    units = request.units if request.units is not None else site.policy.units
    if units is None:
        raise Refused("model", "batches are sized by a public number of patients, which neither "
                      "the call nor the policy gives",
                      "units: 5000 in the policy, units=5000, or units='paid'")
    if type(units) is not int or not 1 <= units <= 10**10:
        raise Refused("model", f"units must be a whole number from 1 up, got {units!r}",
                      "units=5000")
    return units


def check_libraries(order: Order) -> None:
    """Refuse, before anything is paid, a network whose library is not installed."""
    from models import tensors

    if order.family is None or not isinstance(order.family.network, tensors.TensorNetwork):
        return
    try:
        tensors.tensorflow()
    except ImportError:
        raise Refused("model", f"{order.family.name} needs TensorFlow, which is not installed",
                      "pip install 'discreet[train]', or model='logistic'") from None


def train(
    request: Request, site: Site, who: str, quota: Any, progress: Progress | None = None
) -> Model:
    """Plan, pay once, then train: the road of `Engine.train`."""
    order = plan_training(request, site)
    if site.ledger is None:
        reader = open_unpaid_rows(order.statement, site.database, insecure_testing=True)
        return _train(order, reader, site, site.randomness.bytes(32), None, progress,
                      PrivacyLoss.zero())
    check_libraries(order)
    run = order.run
    receipt = site.ledger.charge(
        run.cost, analyst=who, quota=quota, events_json=to_json((run.event,)), sql=request.sql,
        plan_hash=order.plan_hash, policy_hash=site.policy.policy_hash,
        data_version=site.snapshot.data_version,
    )
    with suppress(Exception):  # whatever it is, its text could quote a row; the charge stands
        folder = run_folder(site.directory, site.stem, receipt.seq)
        with folder.alone():
            key = folder.draw_key()
            reader = open_rows(order.statement, order.plan_hash, receipt, site.ledger,
                               site.database, site.snapshot.data_version)
            return _train(order, reader, site, key, folder, progress, run.cost, receipt.seq)
    raise Broken


def resume(
    request: Request, site: Site, seq: int, progress: Progress | None = None
) -> Model:
    """Go on with a run that charge `seq` paid: free, and it ends in the same model.

    Raises Refused where the charge paid for another run, or for other data, and where the run's
    folder is lost.
    """
    order = plan_training(request, site)
    if site.ledger is None:
        raise Refused("testing", "a test run is not charged, so it cannot be resumed", "train()")
    charge = next((c for c in site.ledger.history() if c.seq == seq), None)
    if charge is None or (charge.plan_hash, charge.data_version) != (
        order.plan_hash, site.snapshot.data_version
    ):
        raise Refused("model", f"charge {seq} did not pay for this run on this data",
                      "the number of the charge, and the same call")
    folder = run_folder(site.directory, site.stem, seq)
    if not (folder.has_key or folder.is_finished):
        raise Refused("model", f"the folder of the run that charge {seq} paid is lost; begun anew, "
                      "the charge would buy a second model", "train() without resume")
    with suppress(Exception), folder.alone():
        if folder.is_finished:
            from models.model import Model

            return Model.load(folder.model)
        reader = open_paid_rows(order.statement, order.plan_hash, seq, site.ledger,
                                site.database, site.snapshot.data_version)
        return _train(order, reader, site, folder.key(), folder, progress, order.run.cost, seq)
    raise Broken


def _train(
    order: Order, reader: RowReader, site: Site, key: bytes, folder: RunFolder | None,
    progress: Progress | None, cost: PrivacyLoss, seq: int | None = None,
) -> Model:
    """Read the rows, split the patients, run the steps, count the metrics, store the model.

    Guarantee: what leaves is the parameters (noised in every step) and the noisy counts of
    held-out patients. Which patients are held out is decided by coins from the run's key.
    """
    from models.evaluation import evaluate
    from models.forest import ForestPlan
    from models.statistics import StatisticsPlan
    from models.table import gather, split_units

    run = order.run
    if isinstance(run, StatisticsPlan):
        return _kept(order, site, folder, cost, seq,
                     *fit_statistics(order.view, run, reader, key))
    if isinstance(run, ForestPlan):
        return _kept(order, site, folder, cost, seq, *fit_forest(run, reader, key))
    table = gather(reader.chunks(), run.encoding, order.view.rows)
    if order.family is None:
        raise Broken
    training, held = split_units(table.units, run.settings.holdout, Randomness.keyed(key, SPLIT))
    state = folder.load() if folder is not None else None
    fitted = fit_by_descent(run, order.family, table, training, key, state,
                            _ticker(run, folder, progress))
    metrics = None
    if run.held_multiplier is not None:
        metrics = evaluate(order.family.network, fitted.inside, fitted.table, held,
                           run.held_multiplier, Randomness.keyed(key, METRICS))
    return _kept(order, site, folder, cost, seq, fitted.parameters, metrics, fitted.found,
                 own_architecture(run, order.family))


@dataclass(frozen=True, slots=True)
class Fitted:
    """What descent gives: parameters, and what importance told, both public.

    `inside` are the parameters for `table`, whose inputs are centred and scaled; `parameters`
    give the same scores for inputs that are scaled only.
    """

    parameters: Vector
    inside: Vector
    found: Findings | None
    table: Table = field(repr=False)


def fit_by_descent(
    run: RunPlan, family: Family, table: Table, training: Places, key: bytes,
    state: State | None = None, tick: Callable[[State], None] = lambda state: None,
) -> Fitted:
    """Buy importance and class weights where the run has them, then descend on some patients.

    Guarantee: parameters and findings are what the first branch of run.event pays for; of the
    patients in the table those of `training` alone have a part in them.
    """
    from models.class_weights import with_class_weights
    from models.descent import START, State, descend
    from models.importance import importance, with_findings
    from models.table import chosen

    network, found = family.network, None
    if run.importance_multiplier is not None:
        found = importance(run.encoding, chosen(table, training), run.importance_multiplier,
                           Randomness.keyed(key, IMPORTANCE), run.centres_multiplier)
        table = with_findings(table, run.encoding, found)
    if state is None:
        parameters = network.initial(Randomness.keyed(key, START)).copy()
        if found is not None and run.family != "keras":  # which starts where its owner says
            parameters[-run.encoding.outputs :] += found.start(run.encoding)
        state = State.start(parameters)
    learned = chosen(table, training) if len(training) < table.units else table
    if run.classes_multiplier is not None:
        learned = with_class_weights(learned, run.encoding, run.classes_multiplier,
                                     Randomness.keyed(key, CLASSES))
    state = descend(network, learned, run, key, state, tick)
    shown = state.average if found is None else network.shifted(
        state.average, found.offset(run.encoding))
    return Fitted(shown, state.average, found, table)


def own_architecture(run: RunPlan, family: Family) -> Architecture | None:
    """Return the layers of a user's own network, which are kept with the model."""
    from models.tensors import TensorNetwork

    network = family.network
    if run.family == "keras" and isinstance(network, TensorNetwork):
        return network.architecture
    return None


def _kept(
    order: Order, site: Site, folder: RunFolder | None, cost: PrivacyLoss, seq: int | None,
    parameters: Vector, metrics: Evaluation | None, found: Findings | None = None,
    architecture: Architecture | None = None,
) -> Model:
    """Make the model of a finished run, store it, and mark the run as ended."""
    from models.model import Model

    run = order.run
    card = card_of(order.view, run, site.policy, site.snapshot.data_version, cost, metrics, seq)
    made = Model(run.family, run.encoding, run.settings, parameters, cost, card, metrics,
                 site.ledger is not None,
                 None if found is None else tuple(found.scales.tolist()), architecture,
                 None if found is None else tuple(found.worth.tolist()))
    if folder is not None:
        made.save(folder.model)
        folder.finish()
    return made


def _ticker(run: RunPlan, folder: RunFolder | None, progress: Progress | None) -> Any:
    """Return what is done after each step: show progress, and now and then write the state."""
    every = max(1, run.steps // CHECKPOINTS)

    def tick(state: Any) -> None:
        if progress is not None:
            progress(f"training, epsilon {run.epsilon_after(state.step):.2f} so far", state.step,
                     run.steps)
        if folder is not None and state.step % every == 0 and state.step < run.steps:
            folder.save(state)

    return tick
