"""A trained model: public parameters and facts of its run in; predictions, files, a card out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mechanisms.loss import PrivacyLoss
from models.bayes import BayesModel
from models.descent import Predictor, Vector
from models.encoding import Doubles, Encoding, Task
from models.evaluation import Evaluation
from models.family import family_of
from models.forest import forest_of
from models.importance import scaled
from models.layers import Architecture
from models.linear import LinearModel, sigmoid, softmax
from models.run import Settings, settings_from
from models.tuning import Tuned
from planner.refusal import Refused

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VERSION = 1
ROWS_AT_ONCE = 16_384


@dataclass(frozen=True, slots=True)
class Card:
    """What a reader must know of a model: its data, its price, its protection, its quality."""

    facts: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]

    def __str__(self) -> str:
        width = max(map(len, self.facts))
        return "\n".join(f"{name:{width}}  {value}" for name, value in self.facts.items())


@dataclass(frozen=True, slots=True)
class Model:
    """A released model. It is public: what it predicts, to whom and how often costs nothing.

    `metrics` are those of held-out patients, noised and paid for with the run (None without).
    """

    family: str
    encoding: Encoding
    settings: Settings
    parameters: Vector = field(repr=False)
    cost: PrivacyLoss
    card: Card = field(repr=False)
    metrics: Evaluation | None = None
    is_private: bool = True
    scales: tuple[float, ...] | None = None
    architecture: Architecture | None = None
    worth: tuple[float, ...] | None = None
    tuned: Tuned | None = None

    def predict(self, rows: Any) -> Doubles:
        """Return a prediction for each row: probabilities, or values in the label's units.

        `rows` is a data frame or a mapping with the feature columns of the training view. Binary
        labels give one probability a row, [rows]; classes one for each, [rows, classes].
        """
        columns = self.encoding.columns(rows)
        count = len(columns[0])
        parts = [
            self._predicted([column[first : first + ROWS_AT_ONCE] for column in columns])
            for first in range(0, count, ROWS_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _predicted(self, columns: list[Any]) -> Doubles:
        inputs = self.encoding.matrix(columns)
        if self.scales is not None:
            inputs = scaled(self.encoding, inputs, np.array(self.scales))
        scores = self.network.scores(self.parameters, inputs, self.encoding.pixels(columns))
        if self.encoding.task is Task.BINARY:
            return sigmoid(scores[:, 0])
        if self.encoding.task is Task.CLASSES:
            return softmax(scores)
        return self.encoding.unscaled(scores[:, 0])  # of a number, or the rate of a count

    @property
    def network(self) -> Predictor:
        """The function that the parameters fill."""
        if self.family == "naive_bayes":
            return BayesModel(self.encoding)
        if self.family == "forest":
            return forest_of(self.encoding, self.settings)
        named = self.family if self.architecture is None else self.architecture
        return family_of(named, self.encoding, self.settings).network

    @property
    def importance(self) -> dict[str, float]:
        """What each feature was found to tell of the label, less what noise would show; public.

        By means it is the correlation ratio (for two classes the correlation), 0 to 1; by
        information the root of the mutual information, in nats. 0 is what was not told from
        noise, and says little where the budget was small. Empty where none was bought.
        """
        told = self.worth if self.worth is not None else self.scales
        if told is None:
            return {}
        names = [feature.name for feature in self.encoding.features]
        pairs = zip(names, told, strict=True)
        return dict(sorted(pairs, key=lambda pair: -pair[1]))

    @property
    def coefficients(self) -> dict[str, float]:
        """The weight of each input of a linear model with one score; public. Else empty.

        Inputs are scaled to [-1, 1] by the policy's bounds, so the weights can be compared.
        """
        if not isinstance(self.network, LinearModel) or self.encoding.outputs != 1:
            return {}
        weights = self.parameters.copy()
        if self.scales is not None:
            weights[:-1] *= np.array(self.scales)[list(self.encoding.blocks)]
        names = (*self.encoding.names, "intercept")
        return {name: float(w) for name, w in zip(names, weights, strict=True)}

    def evaluate(self, engine: Any, sql: str, **how: Any) -> Evaluation:
        """Measure the model on the patients of a SELECT: paid and charged by that engine.

        `how` are the arguments of Engine.evaluate: epsilon, delta, analyst, dialect. The metrics
        that came with the model (`metrics`) are on patients who were held out of its training.
        """
        found: Evaluation = engine.evaluate(self, sql, **how)
        return found

    def plot(self) -> Figure:
        """Draw importance or coefficients, and the metrics, from what is public. Free."""
        from models.picture import draw

        return draw(self)

    @property
    def classes(self) -> tuple[str | int, ...]:
        """The values of the label, in the order of predicted probabilities."""
        return self.encoding.classes

    def save(self, folder: str | Path) -> Path:
        """Write the model into a folder: model.json and parameters.npy, no code and no pickle."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / "parameters.npy", self.parameters, allow_pickle=False)
        (place / "model.json").write_text(json.dumps({
            "version": VERSION, "family": self.family, "encoding": self.encoding.to_dict(),
            "settings": {name: getattr(self.settings, name) for name in Settings.__slots__},
            "cost": [str(self.cost.exact_epsilon), str(self.cost.exact_delta),
                     str(self.cost.exact_rdp), str(self.cost.exact_quoted_delta)],
            "card": dict(self.card.facts),
            "metrics": None if self.metrics is None else self.metrics.to_dict(),
            "is_private": self.is_private,
            "scales": None if self.scales is None else list(self.scales),
            "worth": None if self.worth is None else list(self.worth),
            "architecture": None if self.architecture is None else self.architecture.to_list(),
            "tuned": None if self.tuned is None else asdict(self.tuned),
        }, indent=1, default=str))
        return place

    @classmethod
    def load(cls, folder: str | Path) -> Model:
        """Read a model that `save` wrote. Raises Refused for anything else."""
        place = Path(folder)
        try:
            fields = json.loads((place / "model.json").read_text())
            if fields["version"] != VERSION:
                raise ValueError("another version")
            parameters = np.load(place / "parameters.npy", allow_pickle=False).astype(np.float64)
            encoding = Encoding.from_dict(fields["encoding"])
            settings = settings_from(fields["settings"])
            loss = PrivacyLoss(*map(Decimal, fields["cost"]))
            metrics, scales = fields["metrics"], fields["scales"]
            layers, worth = fields["architecture"], fields.get("worth")
            tuned = fields.get("tuned")
            found = cls(
                fields["family"], encoding, settings, parameters, loss, Card(fields["card"]),
                None if metrics is None else Evaluation.from_dict(metrics),
                bool(fields["is_private"]), None if scales is None else tuple(scales),
                None if layers is None else Architecture.from_list(layers),
                None if worth is None else tuple(worth),
                None if tuned is None else Tuned(**tuned),
            )
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise Refused("model", f"{place} holds no model that was saved here "
                          f"({type(problem).__name__})", "Model.load('readmit/')") from None
        if parameters.shape != (found.network.size,) or not all(map(math.isfinite, parameters)):
            raise Refused("model", f"the parameters in {place} do not fit the model", "")
        return found

    def __str__(self) -> str:
        stamp = "" if self.is_private else "NOT PRIVATE  "
        lines = [f"{stamp}{self.family} model for {self.encoding.label.name}, cost {self.cost}"]
        if self.tuned is not None:
            lines.append(f"chosen: {self.tuned}")
        if self.metrics is not None:
            lines.append(f"on held-out patients: {self.metrics}")
        return "\n".join(lines)
