"""Policy in, private answers out: the Engine, and the one visible road of a question."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from engine import execution
from engine.answers import Answers, StoredAnswer
from engine.database import open_desk, open_governed
from engine.errors import Broken, OverBudget
from engine.execution import Exact
from engine.ledger import Charge, Ledger, Receipt
from engine.postprocess import ReleasedTable, Table, postprocess
from engine.release import Released, add_noise, choose_keys, from_payload, to_payload
from engine.result import Result
from engine.snapshot import Snapshot, ensure, load_secret, secret_from_seed
from mechanisms.event import to_json
from mechanisms.filter import Filter
from mechanisms.loss import PrivacyLoss
from mechanisms.randomness import Randomness
from planner.bind import Bound, bind
from planner.bounding import bound as bound_release
from planner.canonical import key_of
from planner.catalog import Catalog
from planner.narrowing import Key
from planner.parse import parse
from planner.plan import Plan, describe
from planner.policy import Policy, read_policy
from planner.price import NoisePlan, PricedRelease, exact, price, remaining
from planner.refusal import Refused

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Number = float | int | str | Decimal
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How one question is to be answered; None means the policy's default."""

    epsilon: Number | None = None
    delta: Number | None = None
    rows: int | None = None


class Engine:
    """Answers SQL over the tables of one policy, within its budget.

    Guarantee: everything an Engine with a ledger returns, to anybody and for ever, is
    (epsilon_total, delta_total)-differentially private for one patient (docs/privacy.md).
    """

    def __init__(
        self, policy: Policy, snapshot: Snapshot, ledger: Ledger | None, analyst: str | None,
        randomness: Randomness, secret: bytes,
    ) -> None:
        self._policy = policy
        self._ledger = ledger
        self._answers = Answers(ledger) if ledger is not None else None
        self._analyst = analyst
        self._randomness = randomness
        self._secret = secret
        self._desk = open_desk()
        budget = policy.budget
        self._filter = ledger.filter if ledger is not None else Filter.for_budget(
            budget.epsilon, budget.delta
        )
        self._use(snapshot)

    @classmethod
    def open(
        cls, policy: str | Path, *, analyst: str | None = None, progress: Progress | None = None,
        insecure_testing: bool = False, seed: int | None = None,
    ) -> Engine:
        """Open a policy file: build the governed snapshot if it is not there, open the ledger.

        `insecure_testing` answers without charging, so that tests can look behind the noise; its
        results say NOT PRIVATE. `seed` fixes its noise and its choice of rows.
        Raises PolicyError, SnapshotError or LedgerError with what to mend.
        """
        declared = read_policy(policy)
        if seed is not None and not insecure_testing:
            raise Refused("testing", "a seed makes noise predictable",
                          "Engine.open(policy, insecure_testing=True, seed=7)")
        if insecure_testing:
            secret = secret_from_seed(seed) if seed is not None else secrets.token_bytes(32)
            snapshot = ensure(declared, secret=secret, directory=_directory(declared),
                              insecure=True, progress=progress)
            source = Randomness.secure() if seed is None else Randomness.seeded(seed)
            return cls(declared, snapshot, None, analyst, source, secret)
        ledger = Ledger.open(
            declared.ledger_url(), declared.budget.epsilon, declared.budget.delta,
            witness=declared.witness_path(),
        )
        secret = load_secret(_directory(declared) / f"{_stem(declared)}.secret")
        snapshot = ensure(declared, secret=secret, directory=_directory(declared),
                          progress=progress)
        return cls(declared, snapshot, ledger, analyst, Randomness.secure(), secret)

    # ---- questions ------------------------------------------------------------------------

    def query(
        self, sql: str, *, epsilon: Number | None = None, delta: Number | None = None,
        rows: int | None = None, analyst: str | None = None, noiseless: bool = False,
    ) -> Result:
        """Answer one SELECT.

        `epsilon` and `delta` are what the whole question may cost (defaults from the policy);
        `rows` is how many rows of one patient may count. `noiseless` and an infinite epsilon
        work on an engine opened with insecure_testing only.
        Raises Refused or OverBudget, and then nothing is charged.
        """
        who = self._who(analyst)
        if noiseless or _is_infinite(epsilon):
            return self._look_behind(sql, Settings(epsilon, delta, rows))
        bound, plan = self._plan(sql, Settings(epsilon, delta, rows))
        if self._ledger is None or self._answers is None:
            return self._test(sql, bound, plan)
        return self._answer(sql, bound, plan, who, self._ledger, self._answers)

    def _plan(self, sql: str, settings: Settings) -> tuple[Bound, NoisePlan]:
        """Text to priced plan: reads no row, spends nothing."""
        try:
            epsilon, delta = self._wanted(settings)
            bound = bind(parse(sql), self._snapshot.catalog)
            bounded = tuple(bound_release(r, settings.rows) for r in bound.releases)
            return bound, price(bounded, epsilon, delta, self._filter.order)
        except Refused as refusal:
            raise refusal.located(sql) from None

    def _answer(
        self, sql: str, bound: Bound, plan: NoisePlan, who: str, ledger: Ledger, answers: Answers
    ) -> Result:
        """The road from a priced plan to a result: pay, read, add noise, keep, post-process."""
        known = self._recall(plan, answers)
        due = remaining(plan, frozenset(known))
        if not due.events:
            # What no row can move is constant: it needs neither a row nor a charge.
            known = self._release(plan, tuple(Exact({}) for _ in plan.releases), known)
            table = self._finish(bound, plan, known)
            return Result(table, PrivacyLoss.zero(), bool(bound.releases),
                          self._described(bound, plan, due, sql))
        receipt = self._charge(ledger, due, sql, who)
        try:
            wanted = frozenset(_names(plan)) - frozenset(known)
            numbers = execution.run(due, wanted, receipt, ledger, self._database,
                                    self._snapshot.data_version)
            known = self._release(plan, numbers, known)
            self._keep(answers, plan, known, wanted, receipt)
            table = self._finish(bound, plan, known)
        except Exception:  # whatever it was, its text could quote a row; the charge stands
            raise Broken from None
        return Result(table, receipt.loss, False, self._described(bound, plan, due, sql))

    def _charge(self, ledger: Ledger, due: NoisePlan, sql: str, who: str) -> Receipt:
        quota = self._policy.analysts.get(who)
        return ledger.charge(
            due.loss, analyst=who, quota=None if quota is None else quota.epsilon,
            events_json=to_json(due.events), sql=sql, plan_hash=due.plan_hash,
            policy_hash=self._policy.policy_hash, data_version=self._snapshot.data_version,
        )

    # ---- stages ---------------------------------------------------------------------------

    def _recall(self, plan: NoisePlan, answers: Answers) -> dict[str, Released]:
        """Find what is already answered at least as accurately as this plan would.

        A column over chosen keys can be given again only beside the same choice of keys.
        """
        known: dict[str, Released] = {}
        for release in plan.releases:
            chosen = ""
            if release.selection is not None:
                found = self._find(answers, release.selection.key, release.selection.deviation)
                if found is None:
                    continue
                known[release.selection.key] = found
                chosen = _fingerprint(found)
            for column in release.measures:
                found = self._find(answers, key_of(column.key, chosen), column.deviation)
                if found is not None:
                    known[column.key] = found
        return known

    def _find(self, answers: Answers, key: str, deviation: float) -> Released | None:
        stored = answers.find_best(key, self._snapshot.data_version, deviation)
        return None if stored is None else from_payload(stored.payload)

    def _release(
        self, plan: NoisePlan, numbers: tuple[Exact, ...], known: dict[str, Released],
        noise: bool = True,
    ) -> dict[str, Released]:
        """Add noise to every column that is not known yet, each once however often it is used."""
        source = self._randomness if noise else None
        known = dict(known)
        for release, exact_numbers in zip(plan.releases, numbers, strict=True):
            if release.selection is not None and release.selection.key not in known:
                known[release.selection.key] = choose_keys(release, exact_numbers, source)
            keys = self._keys(release, known)
            for place, column in enumerate(release.measures):
                if column.key not in known:
                    values = exact_numbers.columns.get(place, {})
                    known[column.key] = add_noise(column, keys, values, source)
        return known

    def _keys(self, release: PricedRelease, known: dict[str, Released]) -> tuple[Key, ...]:
        if release.bounded.keys is not None or release.selection is None:
            return release.bounded.keys or ()
        return known[release.selection.key].keys

    def _keep(
        self, answers: Answers, plan: NoisePlan, known: dict[str, Released],
        wanted: frozenset[str], receipt: Receipt,
    ) -> None:
        """Keep what was just released, so that the same question is free for everybody."""
        for release in plan.releases:
            chosen = ""
            columns = list(release.measures)
            if release.selection is not None:
                chosen = _fingerprint(known[release.selection.key])
                columns.append(release.selection)
            for column in columns:
                if column.key in wanted:
                    is_choice = column is release.selection
                    key = column.key if is_choice else key_of(column.key, chosen)
                    answers.keep(StoredAnswer(
                        key, self._snapshot.data_version, column.deviation,
                        to_payload(known[column.key]), receipt.seq,
                    ))

    def _finish(self, bound: Bound, plan: NoisePlan, known: dict[str, Released]) -> Table:
        tables = tuple(
            ReleasedTable(
                release.bounded.release.source, self._keys(release, known),
                tuple(known[column.key] for column in release.measures),
            )
            for release in plan.releases
        )
        return postprocess(bound, tables, self._desk, self._database)

    # ---- testing --------------------------------------------------------------------------

    def _test(self, sql: str, bound: Bound, plan: NoisePlan, noise: bool = True) -> Result:
        """Answer without a charge and without keeping anything: insecure testing only."""
        numbers = execution.run_unpaid(
            plan, self._database, insecure_testing=self._ledger is None
        )
        known = self._release(plan, numbers, {}, noise)
        table = self._finish(bound, plan, known)
        return Result(table, PrivacyLoss.zero(), False, self._described(bound, plan, plan, sql),
                      is_private=False)

    def _look_behind(self, sql: str, settings: Settings) -> Result:
        """Show exact numbers: those of the plan that would run, or unbounded ones."""
        if self._ledger is not None:
            raise Refused("testing", "exact numbers are shown on test data only",
                          "Engine.open(policy, insecure_testing=True)", None, sql)
        if not _is_infinite(settings.epsilon):
            bound, plan = self._plan(sql, settings)
        else:
            try:
                bound = bind(parse(sql), self._snapshot.catalog)
                bounded = tuple(bound_release(r, None, unbounded=True) for r in bound.releases)
            except Refused as refusal:
                raise refusal.located(sql) from None
            plan = exact(bounded, self._filter.order)
        return self._test(sql, bound, plan, noise=False)

    # ---- what is public about a question and the budget ------------------------------------

    def explain(
        self, sql: str, *, epsilon: Number | None = None, delta: Number | None = None,
        rows: int | None = None,
    ) -> Plan:
        """Say what a question would do and cost. Free, and the same for every database."""
        if _is_infinite(epsilon):
            raise Refused("epsilon", "an infinite epsilon has no plan", "epsilon=0.1", None, sql)
        bound, plan = self._plan(sql, Settings(epsilon, delta, rows))
        known = self._recall(plan, self._answers) if self._answers is not None else {}
        return self._described(bound, plan, remaining(plan, frozenset(known)), sql)

    def _described(self, bound: Bound, plan: NoisePlan, due: NoisePlan, sql: str) -> Plan:
        return describe(bound, plan, sql, due.loss)

    def budget(self, analyst: str | None = None) -> Budget:
        """Show what is spent and left, for everybody or for one analyst. Prices are public."""
        if analyst is not None:
            self._who(analyst)
        quota = self._policy.analysts.get(analyst) if analyst is not None else None
        typical = self._policy.defaults.epsilon
        if self._ledger is None:
            left = self._filter.left(PrivacyLoss.zero())
            return Budget(PrivacyLoss.zero(), left, (), analyst, float(typical))
        cap = None if quota is None else quota.epsilon
        return Budget(
            self._ledger.spent(analyst), self._ledger.left(analyst, cap),
            self._ledger.history(analyst=analyst), analyst, float(typical),
        )

    def history(self, analyst: str | None = None) -> tuple[Charge, ...]:
        """Return the charges, oldest first: time, analyst, question, price, data version."""
        return () if self._ledger is None else self._ledger.history(analyst=analyst)

    @property
    def catalog(self) -> Catalog:
        """The declared tables and columns: what an analyst may ask about."""
        return self._snapshot.catalog

    @property
    def policy(self) -> Policy:
        """The policy this engine was opened with."""
        return self._policy

    @property
    def report(self) -> object:
        """The steward's report of what the snapshot dropped or clamped. Not for analysts."""
        return self._snapshot.report

    def refresh(self, progress: Progress | None = None) -> str:
        """Build a new snapshot of the source and use it; returns its data version.

        New data never renews the budget. The old snapshot stays in use if the build fails.
        """
        snapshot = ensure(
            self._policy, secret=self._secret, directory=_directory(self._policy),
            insecure=self._ledger is None, progress=progress, rebuild=True,
        )
        self._database.close()
        self._use(snapshot)
        return snapshot.data_version

    def close(self) -> None:
        """Close files and connections."""
        self._database.close()
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
        self._snapshot = snapshot
        self._database: DuckDBPyConnection = open_governed(snapshot.path)

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
        epsilon = _exact("epsilon", settings.epsilon, self._policy.defaults.epsilon)
        delta = _exact("delta", settings.delta, self._policy.query_delta())
        if not epsilon > 0:
            raise Refused("epsilon", f"epsilon must be above zero, got {settings.epsilon!r}",
                          "epsilon=0.1")
        if not 0 <= delta < 1:
            raise Refused("delta", f"delta must lie in [0, 1), got {settings.delta!r}",
                          "delta=1e-9")
        return epsilon, delta


@dataclass(frozen=True, slots=True)
class Budget:
    """What is spent and left, on both rails; `charges` are the paid questions behind it."""

    spent: PrivacyLoss
    left: PrivacyLoss
    charges: tuple[Charge, ...] = field(repr=False)
    analyst: str | None
    typical_epsilon: float

    def __str__(self) -> str:
        who = "the budget" if self.analyst is None else f"the budget of {self.analyst}"
        count = int(self.left.epsilon / self.typical_epsilon + 1e-9)
        return (
            f"{who}\n"
            f"  spent   {self.spent}   ({len(self.charges)} charges)\n"
            f"  left    {self.left}\n"
            f"  enough for {count} more questions at epsilon {self.typical_epsilon:g}"
        )


def _exact(name: str, value: Number | None, default: Decimal) -> Fraction:
    """Return a number exactly as it was written: 0.1 is one tenth."""
    if value is None:
        return Fraction(default)
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise Refused(name, f"{name} must be a number, got {value!r}", f"{name}=0.1")
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        raise Refused(name, f"{name} must be a number, got {value!r}", f"{name}=0.1") from None
    if not found.is_finite() or found.adjusted() > 6 or found.adjusted() < -60:
        raise Refused(name, f"{name} must be a usable number, got {value!r}", f"{name}=0.1")
    return Fraction(found)


def _is_infinite(epsilon: Number | None) -> bool:
    return isinstance(epsilon, float) and math.isinf(epsilon) and epsilon > 0


def _names(plan: NoisePlan) -> list[str]:
    return [c.key for r in plan.releases for c in (*r.measures, r.selection) if c is not None]


def _fingerprint(chosen: Released) -> str:
    """Name a released choice of keys, so that columns are kept beside the same choice only."""
    return key_of(repr(chosen.keys))


def _directory(policy: Policy) -> Path:
    """Return where snapshots lie: beside the ledger, or beside the policy for a ledger URL."""
    where = policy.ledger_url()
    return where.parent if isinstance(where, Path) else policy.base


def _stem(policy: Policy) -> str:
    where = policy.ledger_url()
    return where.name if isinstance(where, Path) else "ledger"


__all__ = ["Budget", "Engine", "OverBudget", "Refused", "Settings"]
