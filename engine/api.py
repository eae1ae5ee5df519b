"""Policy in, private answers out: the Engine, and the one visible road of a question."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from engine.accuracy import (
    Account,
    Question,
    answer_unpaid,
    answer_within,
    due_now,
    fixed_outcome,
    fixed_remedy,
)
from engine.answers import Answers
from engine.batch import Terms, answer_batch, answer_batch_unpaid, explain_batch, plan_batch
from engine.budget import Budget
from engine.database import open_desk, open_governed
from engine.errors import Broken, OverBudget
from engine.execution import open_reader, open_unpaid
from engine.releases import (
    Kept,
    Known,
    Public,
    fill,
    finished,
    keep,
    keep_plan,
    recall,
    stored_plan,
)
from engine.result import Result
from engine.results import Results
from engine.settings import Number, Settings, is_infinite, wanted, with_options
from engine.snapshot import Snapshot, ensure, folder_of, load_secret, secret_from_seed, stem_of
from engine.split import Divided, answer_divided, answer_divided_unpaid, explain_divided
from engine.timing import check_slot, whole_slots
from mechanisms.event import to_json
from mechanisms.filter import Filter
from mechanisms.loss import PrivacyLoss
from mechanisms.randomness import Randomness
from planner.bind import Bound, bind
from planner.bounding import bound as bound_release
from planner.catalog import Catalog
from planner.parse import parse
from planner.pilot import Bounds, pilots_of, read_bounds
from planner.plan import Plan, describe
from planner.policy import Policy, read_policy
from planner.price import NoisePlan, exact, price, remaining
from planner.race import raced
from planner.refusal import Refused
from planner.repair import taught
from planner.split import read_split, split_of
from planner.target import Aim, aim_at, read_target
from planner.target_cost import expected_cost
from planner.workload import Workload
from planner.workload_plan import WorkloadPlan

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from engine.ledger import Charge, Ledger, Receipt
    from engine.training import Request, Site
    from models.evaluation import Evaluation
    from models.forest import ForestPlan
    from models.marginal_table import MarginalPlan
    from models.model import Model
    from models.noised_table import NoisedTable, TablePlan
    from models.run import RunPlan
    from models.statistics import StatisticsPlan
    from models.tuning import TuningPlan

# What one question may use of the machine. A question over the limit fails after it was paid.
MEMORY = "4GB"
SECONDS_MAX = 600.0
Progress = Callable[[str, int, int], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Data:
    """One version of the data and all that goes with it; a question sees one from end to end."""

    snapshot: Snapshot
    database: DuckDBPyConnection
    public: Public
    kept: Kept | None


class Engine:
    """Answers SQL over the tables of one policy, within its budget.

    Guarantee: everything an Engine with a ledger returns, to anybody and for ever, is
    (epsilon_total, delta_total)-differentially private for one patient (docs/privacy.md).
    """

    def __init__(
        self, policy: Policy, snapshot: Snapshot, ledger: Ledger | None, analyst: str | None,
        randomness: Randomness, secret: bytes, time_slot: float | None = None,
    ) -> None:
        self._policy = policy
        self._ledger = ledger
        self._answers = Answers(ledger) if ledger is not None else None
        self._analyst = analyst
        self._randomness = randomness
        self._secret = secret
        self._time_slot = check_slot(time_slot)
        self._desk = open_desk()
        budget = policy.budget
        self._data: Data
        self._filter = ledger.filter if ledger is not None else Filter.for_budget(
            budget.epsilon, budget.delta
        )
        self._use(snapshot)

    @classmethod
    def open(
        cls, policy: str | Path, *, analyst: str | None = None, progress: Progress | None = None,
        insecure_testing: bool = False, seed: int | None = None, time_slot: float | None = None,
    ) -> Engine:
        """Open a policy file: build the governed snapshot if it is not there, open the ledger.

        `insecure_testing` answers without charging, so that tests can look behind the noise; its
        results say NOT PRIVATE. `seed` fixes its noise and its choice of rows. With `time_slot`
        every question takes a whole number of slots of so many seconds, so that the time of an
        answer tells less of the rows (engine/timing.py).
        Raises PolicyError, SnapshotError or LedgerError with what to mend.
        """
        declared = read_policy(policy)
        if seed is not None and not insecure_testing:
            raise Refused("testing", "a seed makes noise predictable",
                          "Engine.open(policy, insecure_testing=True, seed=7)")
        if insecure_testing:
            secret = secret_from_seed(seed) if seed is not None else secrets.token_bytes(32)
            snapshot = ensure(declared, secret=secret, directory=folder_of(declared),
                              insecure=True, progress=progress)
            source = Randomness.secure() if seed is None else Randomness.seeded(seed)
            return cls(declared, snapshot, None, analyst, source, secret, time_slot)
        # The lazy door to SQLAlchemy: it takes as long to load as all else together.
        from engine.ledger import Ledger

        ledger = Ledger.open(
            declared.ledger_url(), declared.budget.epsilon, declared.budget.delta,
            witness=declared.witness_path(),
        )
        secret = load_secret(folder_of(declared) / f"{stem_of(declared)}.secret")
        snapshot = ensure(declared, secret=secret, directory=folder_of(declared),
                          progress=progress)
        return cls(declared, snapshot, ledger, analyst, Randomness.secure(), secret, time_slot)

    # ---- questions ------------------------------------------------------------------------

    def query(
        self, sql: str, *, epsilon: Number | None = None, delta: Number | None = None,
        rows: int | None = None, analyst: str | None = None, dialect: str = "duckdb",
        bounds: str | None = None, error: Number | None = None,
        confidence: Number | None = None, error_for: Number | None = None, strict: bool = False,
        split: str | None = None, nonnegative: bool = False, noiseless: bool = False,
    ) -> Result:
        """Answer one SELECT.

        `epsilon` and `delta` are what the whole question may cost (defaults from the policy);
        `rows` is how many rows of one patient may count; `dialect` is the SQL it is written in
        (postgres, bigquery, snowflake, spark, tsql, ...). `bounds` "auto" lets a share of the
        epsilon choose tighter bounds, "declared" takes those of the policy, "race" answers sums
        under many bounds; by default they are chosen where the policy calls them loose.
        `noiseless` and an infinite epsilon work on an engine opened with insecure_testing only.
        `error` says how exact the answer must be and pays no more than that takes, with epsilon
        as the most: "5%" of the answer, or 50 to either side, at `confidence` ("95%"), for "all"
        groups, a share of them, or their "total" (`error_for`). Where that is not enough the
        answer says so, or with `strict` is refused: beforehand if the price is known, else by
        TargetMissed, which is charged. It uses the declared bounds. `split` "auto" divides the
        epsilon among the columns so that the worst relative error is small; "even" is the default.
        `nonnegative` shows zero where noise made a count, or a sum of values from zero on,
        negative: that looks better, and adding up such numbers gives too much.
        Raises Refused or OverBudget, and then nothing is charged.
        """
        settings = Settings(epsilon, delta, rows, dialect, read_bounds(bounds), error, confidence,
                            error_for, read_split(split))
        with whole_slots(self._time_slot):
            result = self._query(sql, settings, analyst, strict, noiseless)
            return replace(result, table=result.table.at_least_zero()) if nonnegative else result

    def query_many(
        self, questions: str | Sequence[str], *, epsilon: Number | None = None,
        delta: Number | None = None, rows: int | None = None, analyst: str | None = None,
        dialect: str = "duckdb", noiseless: bool = False,
    ) -> Results:
        """Answer several SELECTs at one price: a dashboard.

        `questions` are single statements, or a text of several. `epsilon` and `delta` are what
        all of them may cost together (defaults: those of one question). What they share is
        measured once and answers agree with one another: totals are the sums of their parts
        where keys are public (docs/batches.md). It uses the declared bounds, and takes no
        accuracy target.
        Raises Refused or OverBudget for all of them, and then nothing is charged.
        """
        with whole_slots(self._time_slot):
            who, data = self._who(analyst), self._data
            workload = self._workload(questions, epsilon, delta, rows, dialect, data)
            ledger, kept = self._ledger, data.kept
            if ledger is None or kept is None:
                noise = None if noiseless else self._randomness
                return answer_batch_unpaid(workload, data.public, data.database, noise)
            if noiseless:
                raise Refused("testing", "exact numbers are shown on test data only",
                              "Engine.open(policy, insecure_testing=True)")

            def pay(due: NoisePlan) -> Receipt:
                return self._charge(ledger, due, workload.text, who, kept.data_version)

            results = answer_batch(workload, Account(ledger, kept, pay), data.public,
                                   data.database, self._randomness)
            return replace(results, left=self.budget(who or None).left)

    def explain_many(
        self, questions: str | Sequence[str], *, epsilon: Number | None = None,
        delta: Number | None = None, rows: int | None = None, dialect: str = "duckdb",
    ) -> WorkloadPlan:
        """Say what several questions would do and cost together. Free, as `explain` is."""
        workload = self._workload(questions, epsilon, delta, rows, dialect, data := self._data)
        return explain_batch(workload, data.kept, data.public)

    def _workload(
        self, questions: str | Sequence[str], epsilon: Number | None, delta: Number | None,
        rows: int | None, dialect: str, data: Data,
    ) -> Workload:
        if is_infinite(epsilon):
            raise Refused("epsilon", "an infinite epsilon has no plan", "epsilon=1")
        terms = Terms(*self._wanted(Settings(epsilon, delta)), self._filter.order, rows, dialect)
        return plan_batch(questions, terms, data.snapshot.catalog)

    def _query(
        self, sql: str, settings: Settings, analyst: str | None, strict: bool, noiseless: bool
    ) -> Result:
        """The roads of a question: exact, within a target, for testing, or paid."""
        who = self._who(analyst)
        data = self._data  # one version of everything, whatever refresh() does meanwhile
        if noiseless or is_infinite(settings.epsilon):
            return self._look_behind(sql, settings, data)
        if settings.split:
            return self._answer_divided(
                self._taught(self._divided, sql, settings, data), who, data)
        bound, plan, aim = self._taught(self._aimed, sql, settings, data)
        if aim is not None and aim.levels:
            return self._answer_within(Question(sql, bound, aim, data.public, data.database), who,
                                       data, strict)
        if aim is not None and strict and not aim.is_met:
            raise Refused("error-target", fixed_remedy(aim), "a coarser GROUP BY", None, sql)
        if self._ledger is None or data.kept is None:
            result = self._test(sql, bound, plan, data)
        else:
            result = self._answer(sql, bound, plan, who, self._ledger, data, data.kept)
        return result if aim is None else replace(result, target=fixed_outcome(aim))

    def _plan(self, sql: str, settings: Settings, data: Data) -> tuple[Bound, NoisePlan]:
        """Text to priced plan: reads no row, spends nothing."""
        return self._taught(self._aimed, sql, settings, data)[:2]

    def _aimed(
        self, sql: str, settings: Settings, data: Data
    ) -> tuple[Bound, NoisePlan, Aim | None]:
        """Text to priced plan, and to how it meets an accuracy target if there is one."""
        parsed = parse(sql, settings.dialect)
        settings = with_options(settings, parsed.options)
        epsilon, delta = self._wanted(settings)
        bound = bind(parsed, data.snapshot.catalog)
        bounded = tuple(bound_release(r, settings.rows) for r in bound.releases)
        if settings.error is None:
            if settings.bounds is Bounds.RACE:
                bounded = raced(bounded, bound)
            pilots = pilots_of(bounded, bound, data.snapshot.catalog, settings.bounds,
                               settings.rows)
            return bound, price(bounded, epsilon, delta, self._filter.order,
                                pilots=pilots), None
        target = read_target(settings.error, settings.confidence, settings.error_for)
        aim = aim_at(target, bound, bounded, epsilon, delta, self._filter.order)
        return bound, aim.plan, aim

    def _divided(self, sql: str, settings: Settings, data: Data) -> Divided:
        """Text to a plan whose epsilon its answers divide: reads no row, spends nothing."""
        parsed = parse(sql, settings.dialect)
        settings = with_options(settings, parsed.options)
        if settings.error is not None or settings.bounds in (Bounds.AUTO, Bounds.RACE):
            raise Refused("split", "split='auto' takes the whole epsilon under the declared "
                          "bounds", "split='auto' without an error and without bounds=")
        epsilon, delta = self._wanted(settings)
        bound = bind(parsed, data.snapshot.catalog)
        bounded = tuple(bound_release(r, settings.rows) for r in bound.releases)
        split = split_of(bound, bounded, epsilon, delta, self._filter.order)
        return Divided(sql, bound, split, data.public, data.database)

    def _taught(
        self, road: Callable[[str, Settings, Data], T], sql: str, settings: Settings, data: Data
    ) -> T:
        """Go down a road; what it refuses comes with the nearest question that it accepts."""
        try:
            return road(sql, settings, data)
        except Refused as refusal:
            raise taught(refusal, sql, data.snapshot.catalog,
                         lambda text: road(text, settings, data), settings.dialect) from None

    def _answer_divided(self, question: Divided, who: str, data: Data) -> Result:
        """The road of a question whose epsilon its answers divide (engine/split.py)."""
        ledger, kept = self._ledger, data.kept
        if ledger is None or kept is None:
            return answer_divided_unpaid(question, self._randomness)

        def pay(due: NoisePlan) -> Receipt:
            return self._charge(ledger, due, question.sql, who, kept.data_version)

        return answer_divided(question, ledger, kept, pay, self._randomness)

    def _answer(
        self, sql: str, bound: Bound, plan: NoisePlan, who: str, ledger: Ledger, data: Data,
        kept: Kept,
    ) -> Result:
        """The road from a priced plan to a result: recall, pay, read, add noise, keep, finish."""
        plan, known = recall(bound, plan, kept, data.public)
        due = remaining(plan, frozenset(known))
        if not due.events:
            table = finished(bound, plan, known, data.public)
            return Result(table, PrivacyLoss.zero(), bool(bound.releases),
                          describe(bound, plan, sql, due.loss))
        receipt = self._charge(ledger, due, sql, who, kept.data_version)
        with suppress(Exception):  # whatever it is, its text could quote a row; the charge stands
            keep_plan(kept, describe(bound, plan, sql, due.loss), receipt.seq)
            reader = open_reader(due, receipt, ledger, data.database, kept.data_version)
            plan, released = fill(bound, plan, known, reader, data.public, self._randomness,
                                  kept=kept)
            described = describe(bound, plan, sql, due.loss)
            keep_plan(kept, described, receipt.seq)
            keep(bound, plan, known, released, kept, data.public, receipt.seq)
            table = finished(bound, plan, released, data.public)
            return Result(table, receipt.loss, False, described)
        raise Broken  # after the handler has ended, so that no __context__ leads to the failure

    def _answer_within(self, question: Question, who: str, data: Data, strict: bool) -> Result:
        """The road of a question whose price depends on its answer (engine/accuracy.py)."""
        ledger, kept = self._ledger, data.kept
        if ledger is None or kept is None:
            return answer_unpaid(question, self._randomness, strict)

        def pay(due: NoisePlan) -> Receipt:
            return self._charge(ledger, due, question.sql, who, kept.data_version)

        return answer_within(question, Account(ledger, kept, pay), self._randomness, strict)

    def _charge(
        self, ledger: Ledger, due: NoisePlan, sql: str, who: str, data_version: str
    ) -> Receipt:
        return ledger.charge(
            due.loss, analyst=who, quota=self._quota(who), events_json=to_json(due.events),
            sql=sql, plan_hash=due.plan_hash, policy_hash=self._policy.policy_hash,
            data_version=data_version,
        )

    # ---- testing --------------------------------------------------------------------------

    def _test(
        self, sql: str, bound: Bound, plan: NoisePlan, data: Data, noise: bool = True
    ) -> Result:
        """Answer without a charge and without keeping anything: insecure testing only."""
        reader = open_unpaid(plan, data.database, insecure_testing=self._ledger is None)
        randomness = self._randomness if noise else None
        plan, known = fill(bound, plan, {}, reader, data.public, randomness, self._randomness)
        table = finished(bound, plan, known, data.public)
        return Result(table, PrivacyLoss.zero(), False, describe(bound, plan, sql, plan.loss),
                      is_private=False)

    def _look_behind(self, sql: str, settings: Settings, data: Data) -> Result:
        """Show exact numbers: those of the plan that would run, or unbounded ones."""
        if self._ledger is not None:
            raise Refused("testing", "exact numbers are shown on test data only",
                          "Engine.open(policy, insecure_testing=True)", None, sql)
        if not is_infinite(settings.epsilon):
            if settings.bounds is Bounds.DEFAULT:  # an oracle whose bounds no noise moves
                settings = replace(settings, bounds=Bounds.DECLARED)
            bound, plan = self._plan(sql, settings, data)
        else:
            bound, plan = self._taught(self._exact, sql, settings, data)
        return self._test(sql, bound, plan, data, noise=False)

    def _exact(self, sql: str, settings: Settings, data: Data) -> tuple[Bound, NoisePlan]:
        bound = bind(parse(sql, settings.dialect), data.snapshot.catalog)
        bounded = tuple(bound_release(r, None, unbounded=True) for r in bound.releases)
        return bound, exact(bounded, self._filter.order)

    # ---- training -------------------------------------------------------------------------

    def train(
        self, sql: str, *, label: str, model: str = "logistic", epsilon: Number | None = None,
        delta: Number | None = None, rows: int | None = None, units: int | str | None = None,
        analyst: str | None = None, dialect: str = "duckdb",
        buckets: Mapping[str, int] | None = None, progress: Progress | None = None,
        resume: int | None = None, **options: object,
    ) -> Model:
        """Train a model on the rows of a SELECT, under the same policy and ledger.

        `label` names one of its columns; every other column is a feature. `model` is a family of
        models/family.py; `rows` is how many rows of one patient may count; `units` a public
        number of patients (default: the policy's `units`), or "paid": a twentieth of epsilon
        buys a noisy one, as a question of its own; `buckets` hashes named text columns.
        `resume` goes on with the run that this charge paid. Other settings: models/run.Settings.
        Raises Refused or OverBudget, and then nothing is charged.
        """
        from engine.training import resume as go_on
        from engine.training import train
        from engine.training_units import PAID, with_paid_units

        who, site = self._who(analyst), self._site()
        request = self._request(sql, label, model, epsilon, delta, rows=rows, units=units,
                                dialect=dialect, buckets=buckets or {}, options=options)
        if units == PAID:
            request = with_paid_units(request, self._site(), lambda asked, price: self.query(
                asked, epsilon=price, analyst=analyst).rows[0][0], resume)
        if resume is not None:
            return go_on(request, site, resume, progress)
        return train(request, site, who, self._quota(who), progress)

    def explain_train(
        self, sql: str, *, label: str, model: str = "logistic", epsilon: Number | None = None,
        delta: Number | None = None, rows: int | None = None, units: int | str | None = None,
        dialect: str = "duckdb", buckets: Mapping[str, int] | None = None, **options: object,
    ) -> RunPlan | StatisticsPlan | ForestPlan:
        """Say what a training run would do and cost. Free, and the same for every database."""
        from engine.training import plan_training
        from engine.training_units import refuse_unpaid

        refuse_unpaid(units)
        asked = self._request(sql, label, model, epsilon, delta, rows=rows, units=units,
                              dialect=dialect, buckets=buckets or {}, options=options)
        return plan_training(asked, self._site()).run

    def tune(
        self, sql: str, *, label: str, candidates: object, runs: float = 10,
        law: str = "logarithmic", analyst: str | None = None, progress: Progress | None = None,
        resume: int | None = None, **how: Any,
    ) -> Model:
        """Train the best of a secret number of runs, with settings drawn from the candidates.

        `candidates` is a list or a grid of settings, `runs` about how many are tried, `how` the
        other arguments of `train`: epsilon is the price of all. `model.tuned` says what was chosen.
        Raises Refused or OverBudget, and then nothing is charged.
        """
        from engine.tuning import plan_search, tune

        with whole_slots(self._time_slot):
            who, request, site = self._who(analyst), self._asked(sql, label, how), self._site()
            return tune(plan_search(request, candidates, law, runs, site), request, site, who,
                        self._quota(who), progress, resume)

    def explain_tune(
        self, sql: str, *, label: str, candidates: object, runs: float = 10,
        law: str = "logarithmic", **how: Any,
    ) -> TuningPlan:
        """Say what a search would do and cost. Free, and the same for every database."""
        from engine.tuning import plan_search

        return plan_search(self._asked(sql, label, how), candidates, law, runs, self._site()).plan

    def release_table(
        self, sql: str, *, label: str, analyst: str | None = None, **how: Any
    ) -> NoisedTable:
        """Release a table to predict the label from: drawn rows, or with form="rows" noised ones.

        `how`: epsilon, delta, units (the public number of rows), importance (the share of the
        price that finds out which attributes matter). docs/tables.md says when not to.
        Raises Refused or OverBudget, and then nothing is charged.
        """
        from engine.table_release import order_table, release_table

        with whole_slots(self._time_slot):
            who, site = self._who(analyst), self._site()
            return release_table(order_table(self._asked(sql, label, how), site), site,
                                 self._data.kept, who, self._quota(who))

    def explain_release_table(
        self, sql: str, *, label: str, **how: Any
    ) -> TablePlan | MarginalPlan:
        """Say what a table would do and cost. Free, and the same for every database."""
        from engine.table_release import order_table

        return order_table(self._asked(sql, label, how), self._site()).plan

    def evaluate(
        self, model: Model, sql: str, *, epsilon: Number | None = None,
        delta: Number | None = None, analyst: str | None = None, dialect: str = "duckdb",
    ) -> Evaluation:
        """Measure a model on the patients of a SELECT: noisy counts, charged like a question.

        The SELECT has the model's features and label. Each patient counts once, by one row. A
        patient that the model was trained on counts as well: name others for an honest figure.
        Raises Refused or OverBudget, and then nothing is charged.
        """
        from engine.evaluation import evaluate_paid, plan_evaluation

        who, site = self._who(analyst), self._site()
        given = self._policy.budget.delta / 10 if delta is None else delta
        priced = self._wanted(Settings(epsilon, given))
        return evaluate_paid(plan_evaluation(model, sql, site, *priced, dialect), site, who,
                             self._quota(who))

    def publish(self, model: Model, name: str) -> None:
        """Give a released model a name, so that SQL may say discreet_predict('name', ...). Free.

        It is stored beside the ledger; engines that are open elsewhere see it when they open or
        refresh. Raises Refused where the name is taken or SQL cannot express the model.
        """
        from engine.published import models_folder, publish

        publish(models_folder(folder_of(self._policy), stem_of(self._policy)), model, name,
                insecure=self._ledger is None)
        self._data = replace(self._data, snapshot=self._with_models(self._data.snapshot))

    def _with_models(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with a catalog that knows the published models."""
        from engine.published import models_folder, published

        found = published(models_folder(folder_of(self._policy), stem_of(self._policy)))
        return replace(snapshot, catalog=replace(snapshot.catalog, models=found))

    def _request(
        self, sql: str, label: str, model: str, epsilon: Number | None, delta: Number | None,
        **rest: Any,
    ) -> Request:
        from engine.training import Request

        # A run is one large charge: a tenth of the policy's delta is its default.
        given = self._policy.budget.delta / 10 if delta is None else delta
        asked = self._wanted(Settings(epsilon, given))
        return Request(sql=sql, label=label, model=model, epsilon=asked[0], delta=asked[1], **rest)

    def _asked(self, sql: str, label: str, how: dict[str, Any]) -> Request:
        """Read the keyword arguments of `train`."""
        named: dict[str, Any] = {"model": "logistic", "epsilon": None, "delta": None,
                                 "rows": None, "units": None, "dialect": "duckdb", "buckets": {}}
        options = {name: value for name, value in how.items() if name not in named}
        named |= {name: how[name] for name in named if name in how}
        return self._request(sql, label, **named, options=options)

    def _site(self) -> Site:
        from engine.training import Site

        data = self._data
        return Site(self._policy, data.snapshot, data.database, self._ledger, self._filter,
                    self._randomness, folder_of(self._policy), stem_of(self._policy))

    # ---- what is public about a question and the budget ------------------------------------

    def explain(
        self, sql: str, *, epsilon: Number | None = None, delta: Number | None = None,
        rows: int | None = None, dialect: str = "duckdb", bounds: str | None = None,
        error: Number | None = None, confidence: Number | None = None,
        error_for: Number | None = None, split: str | None = None,
    ) -> Plan:
        """Say what a question would do and cost. Free, and the same for every database.

        With an `error`, `plan.target` says what it costs: exactly, or for answers of 10 to 10,000.
        """
        if is_infinite(epsilon):
            raise Refused("epsilon", "an infinite epsilon has no plan", "epsilon=0.1", None, sql)
        data = self._data
        settings = Settings(epsilon, delta, rows, dialect, read_bounds(bounds), error, confidence,
                            error_for, read_split(split))
        if settings.split:
            return explain_divided(self._taught(self._divided, sql, settings, data), data.kept)
        bound, plan, aim = self._taught(self._aimed, sql, settings, data)
        known: Known = {}
        if data.kept is not None and (aim is None or not aim.levels):
            plan, known = recall(bound, plan, data.kept, data.public)
        due = remaining(plan, frozenset(known)).loss
        if aim is None:
            return describe(bound, plan, sql, due)
        if aim.levels and data.kept is not None:
            due = due_now(Question(sql, bound, aim, data.public, data.database), data.kept)
        return replace(describe(bound, plan, sql, due), target=expected_cost(aim, bound))

    def budget(self, analyst: str | None = None) -> Budget:
        """Show what is spent and left, for everybody or for one analyst. Prices are public."""
        if analyst is not None:
            self._who(analyst)
        typical = self._policy.defaults.epsilon
        if self._ledger is None:
            left = self._filter.left(PrivacyLoss.zero())
            return Budget(PrivacyLoss.zero(), left, (), analyst, float(typical))
        return Budget(
            self._ledger.spent(analyst), self._ledger.left(analyst, self._quota(analyst)),
            self._ledger.history(analyst=analyst), analyst, float(typical),
        )

    def history(self, analyst: str | None = None) -> tuple[Charge, ...]:
        """Return the charges, oldest first: time, analyst, question, price, data version."""
        return () if self._ledger is None else self._ledger.history(analyst=analyst)

    def plan_of(self, seq: int) -> dict[str, object] | None:
        """Return the plan that was stored beside a charge, as plain values.

        It says how the sensitivity was derived, and is as public as the charge. None where the
        charge made no answer, or was made for another version of the data.
        """
        kept = self._data.kept
        return None if kept is None else stored_plan(kept, seq)

    @property
    def catalog(self) -> Catalog:
        """The declared tables and columns: what an analyst may ask about."""
        return self._data.snapshot.catalog

    @property
    def policy(self) -> Policy:
        """The policy this engine was opened with."""
        return self._policy

    @property
    def report(self) -> object:
        """The steward's report of what the snapshot dropped or clamped: exact private counts.

        Refused on an engine that was opened for an analyst.
        """
        if self._analyst is not None:
            raise Refused("analyst", "the snapshot's report is for the data steward",
                          "Engine.open(policy) without an analyst")
        return self._data.snapshot.report

    def refresh(self, progress: Progress | None = None) -> str:
        """Build a new snapshot of the source and use it; returns its data version.

        New data never renews the budget. The old snapshot stays in use if the build fails.
        """
        snapshot = ensure(
            self._policy, secret=self._secret, directory=folder_of(self._policy),
            insecure=self._ledger is None, progress=progress, rebuild=True,
        )
        self._use(snapshot)  # questions under way keep the old one until they are done
        return snapshot.data_version

    def close(self) -> None:
        """Close files and connections."""
        self._data.database.close()
        self._desk.close()
        if self._answers is not None:
            self._answers.close()
        if self._ledger is not None:
            self._ledger.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ---- small print ----------------------------------------------------------------------

    def _use(self, snapshot: Snapshot) -> None:
        snapshot = self._with_models(snapshot)
        database = open_governed(
            snapshot.path, MEMORY, min(os.cpu_count() or 1, 8), SECONDS_MAX
        )
        kept = None if self._answers is None else Kept(self._answers, snapshot.data_version)
        self._data = Data(snapshot, database, Public(self._desk, database), kept)

    def _who(self, analyst: str | None) -> str:
        """Return the analyst to charge; required where the policy declares any."""
        who = analyst if analyst is not None else self._analyst
        known = self._policy.analysts
        if not known:
            return who or ""
        if who is None or who not in known:
            named = "no analyst was named" if who is None else f"no analyst {who!r}"
            raise Refused("analyst", named, f"analyst= one of {', '.join(sorted(known))}")
        return who

    def _wanted(self, settings: Settings) -> tuple[Fraction, Fraction]:
        """Return the epsilon and delta of a question as exact fractions."""
        return wanted(settings, self._policy.defaults.epsilon, self._policy.query_delta())

    def _quota(self, who: str | None) -> Decimal | None:
        """Return an analyst's cap below the global one, where the policy gives one."""
        quota = None if who is None else self._policy.analysts.get(who)
        return None if quota is None else quota.epsilon


__all__ = ["Budget", "Engine", "OverBudget", "Refused", "Settings"]
