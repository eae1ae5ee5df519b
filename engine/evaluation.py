"""A released model and a view of patients in, metrics out: bind, price, charge, count, noise."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from engine.errors import Broken
from engine.execution import RowReader, open_rows, open_unpaid_rows
from engine.training import Site
from mechanisms.event import SampledGaussianEvent, to_json
from mechanisms.loss import PrivacyLoss
from mechanisms.pricing import loss_of
from mechanisms.sampled import multiplier_for
from planner.canonical import key_of
from planner.feature import Coding
from planner.refusal import Refused
from planner.training_view import TrainingView, bind_view

if TYPE_CHECKING:
    from models.evaluation import Evaluation
    from models.model import Model


@dataclass(frozen=True, slots=True)
class Examination:
    """A bound and priced count of patients by score and label."""

    model: Model
    view: TrainingView
    multiplier: float
    event: SampledGaussianEvent
    cost: PrivacyLoss

    @property
    def plan_hash(self) -> str:
        """Name exactly what is paid for: the statement, the model and the noise."""
        weights = self.model.parameters.tobytes().hex()
        return key_of("evaluation", self.view.statement, repr(self.model.encoding.to_dict()),
                      weights, repr(self.event))


def plan_evaluation(
    model: Model, sql: str, site: Site, epsilon: Fraction, delta: Fraction, dialect: str
) -> Examination:
    """Text and model to a priced count: reads no row, spends nothing.

    Raises Refused where the view is not one of the model's features and label.
    """
    if not delta > 0:
        raise Refused("delta", "metrics need a delta above zero", "delta=1e-6")
    encoding = model.encoding
    features = [feature.as_viewed for feature in encoding.features]
    buckets = {f.name: f.buckets for f in features if f.coding is Coding.BUCKETS}
    view = bind_view(sql, site.snapshot.catalog, encoding.label.name, 1, dialect=dialect,
                     buckets=buckets)
    strange = {*view.features, view.label} ^ {*features, encoding.label}
    if strange:
        names = ", ".join(sorted({feature.name for feature in strange}))
        raise Refused("model", f"the view and the model differ in {names}",
                      str(model.card["training view"]).strip(), None, sql)
    try:
        multiplier = multiplier_for(lambda z: ((1.0, z, 1),), epsilon, delta)
        event = SampledGaussianEvent((((1.0, multiplier, 1),),), delta)
    except ValueError as problem:
        raise Refused("epsilon", f"no count has this price: {problem}", "epsilon=0.1") from None
    return Examination(model, view, multiplier, event, loss_of((event,), site.filter.order))


def evaluate_paid(found: Examination, site: Site, who: str, quota: Any) -> Evaluation:
    """Pay, then count each patient once: the road of `Engine.evaluate`."""
    if site.ledger is None:
        reader = open_unpaid_rows(found.view.statement, site.database, insecure_testing=True)
        return _counted(found, reader, site)
    receipt = site.ledger.charge(
        found.cost, analyst=who, quota=quota, events_json=to_json((found.event,)),
        sql=found.view.sql, plan_hash=found.plan_hash, policy_hash=site.policy.policy_hash,
        data_version=site.snapshot.data_version,
    )
    with suppress(Exception):  # whatever it is, its text could quote a row; the charge stands
        reader = open_rows(found.view.statement, found.plan_hash, receipt, site.ledger,
                           site.database, site.snapshot.data_version)
        return _counted(found, reader, site)
    raise Broken


def _counted(found: Examination, reader: RowReader, site: Site) -> Evaluation:
    """Read one row a patient, and release the noisy histogram of scores and labels.

    Guarantee: what leaves is one Gaussian release of counts in which a patient is one (see
    models/evaluation.evaluate); the model's own numbers are public already.
    """
    import numpy as np

    from models.evaluation import evaluate
    from models.importance import with_scales
    from models.table import gather

    model, encoding = found.model, found.model.encoding
    places = [found.view.features.index(feature.as_viewed) for feature in encoding.features]
    chunks = (
        (unit, *(columns[i] for i in places), label)
        for unit, *columns, label in reader.chunks()
    )
    table = gather(chunks, encoding, 1)
    if model.scales is not None:
        table = with_scales(table, encoding, np.array(model.scales))
    return evaluate(model.network, model.parameters, table, np.arange(table.units),
                    found.multiplier, site.randomness)
