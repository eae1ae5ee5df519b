"""Membership from trained models: was this person among the patients that a model learned from?

Loss threshold (Yeom et al. 2018): a model fits those whom it saw better. Shadow models (Shokri et
al. 2017, in the form of Carlini et al. 2022): the attacker trains models of the same kind with and
without each target, learns what the target's confidence looks like either way, and scores the
model at hand by the ratio of likelihoods. Labels are coins here, so that all a model can learn of
them is whose they are; every person of a pool is a patient by a fair coin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attacks.curators import Kind, curator, one_table

POOL, FEATURES, MODELS = 200, 200, 24
STEPS = 13
NEARLY_NO_NOISE = 300.0  # the epsilon of a model that protects nobody
FALSE_POSITIVES = 0.01
CLOSEST = 1e-9  # of a probability to 0 or 1


@dataclass(frozen=True, slots=True)
class Pool:
    """People who may be patients: features, labels and, for each model, who is one."""

    features: Any
    labels: Any
    present: Any  # (models, people)


def pool(rng: np.random.Generator, people: int, features: int, models: int) -> Pool:
    """Draw people, and for each model the patients among them."""
    return Pool(rng.integers(0, 2, (people, features)), rng.integers(0, 2, people).astype(bool),
                rng.random((models, people)) < 0.5)


def confidences(
    kind: Kind, folder: Path, drawn: Pool, place: int, *, epsilon: float, each: float, times: int
) -> Any:
    """Train on one table and return the log odds that the model gives to everybody's true label.

    Without a budget, `times` models are trained at `each` and what they say is averaged.
    """
    here, names = drawn.present[place], [f"x{i}" for i in range(drawn.features.shape[1])]
    columns: dict[str, Any] = {"id": np.flatnonzero(here), "sick": drawn.labels[here]}
    columns |= {name: drawn.features[here, i] for i, name in enumerate(names)}
    declared = one_table("\n".join(
        [*(f"{name}: {{integer: [0, 1], not_null: true}}" for name in names), "sick: boolean"]))
    view = f"SELECT {', '.join(names)}, sick FROM people"
    settings: dict[str, Any] = {"label": "sick", "units": len(drawn.labels) // 2, "holdout": 0.0,
                                "decay": 0.0, "steps": STEPS}
    price = {Kind.EXACT: NEARLY_NO_NOISE, Kind.UNBUDGETED: each, Kind.DISCREET: epsilon}[kind]
    found = np.zeros(len(drawn.labels))
    with curator(kind, folder, columns, declared, epsilon=epsilon) as asked:
        left = float(asked.engine.budget().left.delta) if kind is Kind.DISCREET else 1e-6
        rounds = times if kind is Kind.UNBUDGETED else 1
        for _ in range(rounds):
            model = asked.engine.train(view, epsilon=price, delta=0.99 * left, **settings)
            told = model.predict({name: drawn.features[:, i] for i, name in enumerate(names)})
            right = np.clip(np.where(drawn.labels, told, 1 - told), CLOSEST, 1 - CLOSEST)
            found += np.log(right / (1 - right)) / rounds
    return found


def by_shadows(told: Any, present: Any) -> Any:
    """Score every (model, person): the log of how much likelier the confidence is of a member.

    Each model is the target once and the others are its shadows; a person's confidences with and
    without are taken as normal.
    """
    scores = np.zeros(told.shape)
    for place in range(len(told)):
        others = np.arange(len(told)) != place
        for side, sign in ((True, 1.0), (False, -1.0)):
            mask = (present == side) & others[:, None]
            count = np.maximum(mask.sum(axis=0), 1)
            mean = np.where(mask, told, 0).sum(axis=0) / count
            spread = np.sqrt(np.where(mask, (told - mean) ** 2, 0).sum() / max(mask.sum(), 1))
            away = (told[place] - mean) / max(float(spread), 1e-12)
            scores[place] -= sign * (away**2 / 2 + np.log(max(float(spread), 1e-12)))
    return scores


def rates(scores: Any, present: Any) -> dict[str, float]:
    """Return true positives at 1 % false ones, and the area under the curve."""
    inside, outside = scores[present], scores[~present]
    above = float(np.quantile(outside, 1 - FALSE_POSITIVES))
    order = np.searchsorted(np.sort(outside), inside)
    return {"tpr": float(np.mean(inside > above)), "auc": float(order.mean() / len(outside))}


def inferred(
    kind: Kind, folder: Path, seed: int, *, people: int = POOL, features: int = FEATURES,
    models: int = MODELS, epsilon: float = 1.0, each: float = 1.0, times: int = 60,
) -> dict[str, dict[str, float]]:
    """Train `models` models on as many tables and attack each; return rates by attack."""
    drawn = pool(np.random.default_rng(seed), people, features, models)
    told: Sequence[Any] = [
        confidences(kind, folder / str(i), drawn, i, epsilon=epsilon, each=each, times=times)
        for i in range(models)
    ]
    stacked = np.array(told)
    return {"loss threshold": rates(stacked, drawn.present),
            "shadow models": rates(by_shadows(stacked, drawn.present), drawn.present)}
