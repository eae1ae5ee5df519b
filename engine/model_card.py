"""A finished run in, what a reader must know of its model out: public facts only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechanisms.loss import PrivacyLoss
    from models.evaluation import Evaluation
    from models.forest import ForestPlan
    from models.model import Card
    from models.run import RunPlan
    from models.statistics import StatisticsPlan
    from planner.policy import Policy
    from planner.training_view import TrainingView


def card_of(
    view: TrainingView, run: RunPlan | StatisticsPlan | ForestPlan, policy: Policy,
    data_version: str, cost: PrivacyLoss, metrics: Evaluation | None, seq: int | None,
) -> Card:
    """Return a model's card. Without a charge (`seq`) it says that nothing is protected."""
    from models.model import Card

    private = f"epsilon {cost.epsilon:.6g}, delta {cost.delta:.3g}, for one patient with all rows"
    facts: dict[str, Any] = {
        "model": run.family,
        "predicts": run.encoding.label.name,
        "from": ", ".join(f.name for f in run.encoding.features),
        "training view": view.sql,
        "privacy": "NOT PRIVATE (insecure testing)" if seq is None else private,
        "epsilon": cost.epsilon,
        "delta": cost.delta,
        "unit": policy.unit,
        "rows a patient": view.rows,
        **run.card_facts(),
        "metrics": "none" if metrics is None else str(metrics),
        "charge": seq,
        "policy": policy.policy_hash,
        "data version": data_version,
        "trained": datetime.now(UTC).isoformat(timespec="seconds"),
        "intended use": "people like those of the training view; not for decisions about a "
                        "patient without validation on them",
        "limits": "noise hides rare groups: metrics are of all held-out patients together",
    }
    return Card(facts)
