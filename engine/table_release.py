"""The one visible road of a noised table: bind the view, price, charge, read, noise, keep."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.answers import StoredAnswer
from engine.errors import Broken
from engine.execution import RowReader, open_rows, open_unpaid_rows
from engine.releases import Kept
from engine.training import Request, Site, public_units
from mechanisms.event import to_json
from mechanisms.loss import PrivacyLoss
from planner.canonical import key_of
from planner.refusal import Refused
from planner.training_view import TrainingView, bind_view

if TYPE_CHECKING:
    from models.marginal_table import MarginalPlan
    from models.noised_table import NoisedTable, TablePlan

# Of the price, where nothing else is asked: drawn rows gain nothing by it (benchmarks/table.py).
IMPORTANCE = {"marginals": 0.0, "rows": 0.2}


@dataclass(frozen=True, slots=True)
class TableOrder:
    """A bound and priced table: what is charged, and what the charge pays for."""

    view: TrainingView
    plan: TablePlan | MarginalPlan

    @property
    def plan_hash(self) -> str:
        """Name exactly what is paid for: the statement, the table and its noise."""
        return key_of("noised table", self.view.statement, repr(self.plan.facts()),
                      repr(self.plan.events))


def order_table(request: Request, site: Site) -> TableOrder:
    """Text to priced table: reads no row, spends nothing."""
    from models.encoding import Encoding
    from models.marginal_table import plan_marginals
    from models.noised_table import plan_table

    options = {"importance_by": "means", "form": "marginals", "importance": None,
               **request.options}
    strange = sorted(set(options) - {"importance", "importance_by", "form"})
    strange += [name for name, given in (
        ("rows", request.rows not in (None, 1)), ("buckets", request.buckets),
        ("model", request.model != "logistic")) if given]
    if strange:
        raise Refused("training-view", f"a released table has no setting {strange[0]}: it has one "
                      "row a patient, of declared columns",
                      "label, epsilon, delta, units, form, importance and importance_by")
    if options["form"] not in ("marginals", "rows"):
        raise Refused("model", f"form cannot be {options['form']!r}", "form='marginals'")
    share, by = options["importance"], options["importance_by"]
    share = IMPORTANCE[options["form"]] if share is None else share
    if by not in ("means", "information"):
        raise Refused("model", f"importance_by cannot be {by!r}", "importance_by='means'")
    if isinstance(share, bool) or not isinstance(share, int | float):
        raise Refused("model", f"importance cannot be {share!r}", "importance=0.2")
    view = bind_view(request.sql, site.snapshot.catalog, request.label, 1,
                     dialect=request.dialect)
    planned = plan_table if options["form"] == "rows" else plan_marginals
    return TableOrder(view, planned(
        Encoding(view.features, view.label), public_units(request, site), float(share), by,
        request.epsilon, request.delta, site.filter.order))


def release_table(
    order: TableOrder, site: Site, kept: Kept | None, who: str, quota: Any
) -> NoisedTable:
    """Recall, or pay once and noise: the road of `Engine.release_table`."""
    if site.ledger is None:
        reader = open_unpaid_rows(order.view.statement, site.database, insecure_testing=True)
        return replace(_noised(order, reader, site), cost=PrivacyLoss.zero(), is_private=False)
    if kept is None:
        raise Broken
    known = recalled(order, kept)
    if known is not None:
        return known
    plan = order.plan
    receipt = site.ledger.charge(
        plan.cost, analyst=who, quota=quota, events_json=to_json(plan.events), sql=order.view.sql,
        plan_hash=order.plan_hash, policy_hash=site.policy.policy_hash,
        data_version=site.snapshot.data_version,
    )
    with suppress(Exception):  # whatever it is, its text could quote a row; the charge stands
        reader = open_rows(order.view.statement, order.plan_hash, receipt, site.ledger,
                           site.database, site.snapshot.data_version)
        made = _noised(order, reader, site)
        payload = json.dumps(made.to_dict()).encode()
        kept.answers.keep(StoredAnswer(order.plan_hash, kept.data_version, 0.0, payload,
                                       receipt.seq))
        return made
    raise Broken


def recalled(order: TableOrder, kept: Kept | None) -> NoisedTable | None:
    """Return the same table if it was released before, which is free; the one charged first."""
    from models.noised_table import NoisedTable

    found = None if kept is None else kept.answers.find_best(order.plan_hash, kept.data_version, 0)
    if found is None:
        return None
    return NoisedTable.from_dict(json.loads(found.payload), PrivacyLoss.zero())


def _noised(order: TableOrder, reader: RowReader, site: Site) -> NoisedTable:
    """Read the rows, buy importance, noise all rows.

    Guarantee: what leaves is plan.events, made by models/noised_table.noised_table or by
    models/marginal_table.drawn_table.
    """
    from models.marginal_table import MarginalPlan, drawn_table
    from models.noised_table import gathered, noised_table
    from models.table import gather

    plan = order.plan
    rows = gathered(reader.chunks(), plan.attributes)
    bought = plan.bought if isinstance(plan, MarginalPlan) else plan.multiplier
    table = None if bought is None else gather(reader.chunks(), plan.encoding, 1)
    if isinstance(plan, MarginalPlan):
        return drawn_table(plan, rows, table, site.randomness.bytes(32))
    return noised_table(plan, rows, table, site.randomness.bytes(32))
