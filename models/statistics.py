"""Models that are read off one noisy vector of sums: settings in, a priced plan and a fit out.

Where gradient descent asks the data a hundred times, these ask once: the products of encoded
columns are added up by one bounded statement (planner/sufficient.py), get noise like a question's
sums, and all else is arithmetic on released numbers.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from mechanisms.event import Phase, SampledGaussianEvent
from mechanisms.loss import PrivacyLoss
from mechanisms.pricing import loss_of
from mechanisms.randomness import Randomness
from mechanisms.sampled import multiplier_for
from mechanisms.sampled import rdp as rdp_of
from models.bayes import BayesModel, bayes, is_indicator, is_two, number_places
from models.counts import noised_counts
from models.encoding import CODED, Encoding
from models.linear import LinearModel
from models.run import Settings, is_classified
from planner.feature import Coding
from planner.refusal import Refused
from planner.sufficient import Products, class_columns, input_columns, scaled_column
from planner.training_view import TrainingView

Vector = npt.NDArray[np.float64]
SUMS_MAX = 3_000  # a statement with more takes the database longer than descent takes
CLIP_SHARE = 0.5  # of the squared norm that a row has by its encoding alone
EDGE = 2.0  # times noise times root of the width: where the eigenvalues of pure noise end
NAMES = ("linear", "naive_bayes")


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsPlan:
    """One noisy vector before it is paid: free to ask, and the same for every database.

    `sigma` is the noise on each sum in grid steps, `distance` how far a patient moves all sums.
    """

    family: str
    encoding: Encoding
    settings: Settings
    units: int
    products: Products = field(repr=False)
    rows: int
    distance: int
    multiplier: float
    held_multiplier: float | None
    event: SampledGaussianEvent
    cost: PrivacyLoss

    @property
    def sigma(self) -> float:
        """The noise on each sum, in grid steps."""
        return float(np.nextafter(self.multiplier * self.distance, np.inf))

    @property
    def network(self) -> LinearModel | BayesModel:
        """The function that the fitted parameters fill."""
        return LinearModel(self.encoding) if self.family == "linear" else BayesModel(self.encoding)

    def facts(self) -> dict[str, Any]:
        """Return all of it as plain values: what is hashed, kept and shown."""
        return {
            "family": self.family, "units": self.units, "multiplier": self.multiplier,
            "held_multiplier": self.held_multiplier, "distance": self.distance,
            "rows": self.rows, "pairs": len(self.products.pairs), "clip": self.products.clip,
            "grid": self.products.grid, "settings": asdict(self.settings),
            "encoding": self.encoding.to_dict(),
        }

    def card_facts(self) -> dict[str, Any]:
        """Return what the model's card says of the run."""
        return {"sums": len(self.products.pairs), "noise multiplier": self.multiplier}

    def __str__(self) -> str:
        share = self.sigma / self.products.grid / max(1.0, self.units)
        lines = [
            f"a {self.family} model of {len(self.encoding.features)} features for "
            f"{self.encoding.label.name}, from one vector of {len(self.products.pairs):,} sums",
            f"  cost              {self.cost}",
            f"  noise             {self.sigma / self.products.grid:.4g} patients on each sum, "
            f"{share:.2g} of all patients",
        ]
        if self.held_multiplier is not None:
            lines.append(f"  metrics           on {self.settings.holdout:.0%} of the patients, "
                         f"counts with noise {self.held_multiplier:.3g}, within the same price")
        return "\n".join(lines)


def is_statistics(model: object, settings: Settings) -> bool:
    """Return whether a family is fitted from one noisy vector."""
    return model == "naive_bayes" or (model == "linear" and settings.solver == "statistics")


def plan_statistics(
    family: str, view: TrainingView, encoding: Encoding, settings: Settings, units: int,
    epsilon: Fraction, delta: Fraction, order: Fraction,
) -> StatisticsPlan:
    """Choose the sums from public facts, and their noise from epsilon.

    Guarantee: the event is fixed here, before any row is read: one Gaussian release of a vector
    that a patient moves by at most `distance`. Held-out patients are told by a coin that depends
    on no data, so that a patient is in the sums or in the metrics, and the larger price holds.
    """
    _check(family, encoding, settings)
    products = _products(family, view, encoding)
    if len(products.pairs) > SUMS_MAX:
        raise Refused("model", f"a {family} model of this view needs {len(products.pairs):,} sums, "
                      f"and at most {SUMS_MAX:,} are asked at once",
                      "fewer columns, or model='logistic' and its like, which descend")
    event, multiplier, held = branches_for(settings.holdout, epsilon, delta, order)
    return StatisticsPlan(
        family=family, encoding=encoding, settings=settings, units=units, products=products,
        rows=view.rows, distance=products.distance(view.rows), multiplier=multiplier,
        held_multiplier=held, event=event, cost=loss_of((event,), order),
    )


def _check(family: str, encoding: Encoding, settings: Settings) -> None:
    if encoding.image is not None:
        raise Refused("model", f"a {family} model takes no image", "model='cnn'")
    if family == "linear" and is_classified(encoding):
        raise Refused("model", f"{encoding.label.name} has classes, and linear regression "
                      "predicts numbers", "model='logistic', or model='naive_bayes'")
    if family == "naive_bayes" and not is_classified(encoding):
        raise Refused("model", f"{encoding.label.name} is a number, and naive Bayes predicts "
                      "classes", "model='linear', solver='statistics'")
    refuse_unused("a model from one vector of sums", settings)


def refuse_unused(what: str, settings: Settings) -> None:
    """Refuse settings of descent where nothing descends."""
    unused = [name for name in ("steps", "batch", "clip", "learning_rate", "decay", "optimizer")
              if getattr(settings, name) is not None]
    if settings.importance > 0:
        unused.append("importance")
    if settings.noise_end != 1.0:
        unused.append("noise_end")
    unused += [name for name in ("clip_quantile", "class_weights") if getattr(settings, name)]
    unused += [name for name in ("embedding", "loss") if getattr(settings, name)]
    if unused:
        raise Refused("model", f"{what} has no {unused[0]}",
                      "epsilon, delta, rows, units and holdout")


def branches_for(
    holdout: float, epsilon: Fraction, delta: Fraction, order: Fraction
) -> tuple[SampledGaussianEvent, float, float | None]:
    """Return the event of one Gaussian release of a price, its multiplier, and that of metrics.

    Guarantee: with patients held out it has two branches, told by a coin that depends on no data,
    and neither rail pays more for the metrics than for the release.
    """
    if not delta > 0:
        raise Refused("delta", "training needs a delta above zero", "delta=1e-6")
    try:
        multiplier = multiplier_for(lambda z: ((1.0, z, 1),), epsilon, delta)
        training: tuple[Phase, ...] = ((1.0, multiplier, 1),)
        if holdout == 0:
            return SampledGaussianEvent((training,), delta), multiplier, None
        least = math.sqrt(float(order / (2 * rdp_of(training, order)))) * (1 + 1e-9)
        held = max(multiplier, least)
        event = SampledGaussianEvent((training, ((1.0, held, 1),)), delta)
    except ValueError as problem:
        raise Refused("epsilon", f"no release has this price: {problem}",
                      "an epsilon between 0.1 and 10") from None
    return event, multiplier, held


def _products(family: str, view: TrainingView, encoding: Encoding) -> Products:
    """Return the sums of a family; places of columns are those of the encoding's inputs."""
    inputs, place = input_columns(view.features), len(view.features) + 1
    width = len(inputs)
    if family == "linear":
        columns = (*inputs, "1e0", scaled_column(f"c{place}", view.label))
        pairs = tuple((i, j) for i in range(width + 2) for j in range(i, width + 2)
                      if _is_asked(encoding, i, j))
        clip = CLIP_SHARE * _square(encoding)
        return Products(columns, pairs, clip**2, clip)
    classes = class_columns(place, view.label, len(encoding.classes))
    numbers = number_places(encoding)
    squares = tuple(f"({inputs[i]}) * ({inputs[i]})" for i in numbers)
    columns = (*inputs, *squares, "1e0", *classes)
    first = width + len(squares)
    pairs = tuple((k, first + 1 + c) for c in range(len(classes)) for k in range(first + 1))
    return Products(columns, pairs, _reach(encoding))


def _square(encoding: Encoding) -> float:
    """Return about what squared norm an encoded row has, label and intercept included."""
    found = 1 + 1 / 3
    for feature in encoding.features:
        is_number = feature.coding in (Coding.NUMBER, Coding.MOMENT)
        found += 1 / 3 if is_number and not is_two(feature) else 1.0
    return found


def _is_asked(encoding: Encoding, i: int, j: int) -> bool:
    """Return whether a product tells anything: two values of one category never meet, and the
    square of an indicator is the indicator."""
    width, blocks = encoding.width, encoding.blocks
    if j >= width:
        return (i, j) != (width + 1, width + 1)  # the label's own square is not needed
    return blocks[i] != blocks[j] or (i == j and not is_indicator(encoding, i))


def _reach(encoding: Encoding) -> float:
    """Return the largest squared norm of a row's products in naive Bayes.

    A row has one class, so the norm is that of (1, inputs, squares): 1, one for a category or a
    truth value, two for a number and its square, or one where it is missing.
    """
    return 1.0 + sum(
        1.0 if feature.coding in CODED or is_two(feature) else 2.0
        for feature in encoding.features
    )


# ---- noise, and what is read off -------------------------------------------------------------


def released(plan: StatisticsPlan, sums: npt.NDArray[np.int64], randomness: Randomness) -> Vector:
    """Return the sums with noise, in patients.

    Guarantee: Gaussian noise of plan.sigma (counts.py) is added to whole numbers that one patient
    moves by at most plan.distance in L2 norm. Everything after this is post-processing.
    """
    if sums.shape != (len(plan.products.pairs),):
        raise ValueError("the sums are not those of the plan")
    found: Vector = noised_counts(sums, plan.sigma, randomness) / plan.products.grid
    return found


def fitted(plan: StatisticsPlan, noisy: Vector) -> Vector:
    """Return the parameters of the plan's network, from released sums alone."""
    if plan.family == "linear":
        return _regression(plan, noisy)
    numbers = number_places(plan.encoding)
    table = noisy.reshape(len(plan.encoding.classes), -1)
    return bayes(plan.encoding, numbers, table, plan.sigma / plan.products.grid)


def _regression(plan: StatisticsPlan, noisy: Vector) -> Vector:
    """Solve least squares on noisy second moments.

    Eigenvalues below the edge of the noise's own spectrum (EDGE sigma root(d), Wigner) are noise:
    they are raised to it, which is a ridge that acts only where the data say nothing.
    """
    encoding, width = plan.encoding, plan.encoding.width
    moments = np.zeros((width + 2, width + 2))
    for value, (i, j) in zip(noisy, plan.products.pairs, strict=True):
        moments[i, j] = moments[j, i] = value
    for place in range(width):
        if is_indicator(encoding, place):
            moments[place, place] = moments[place, width]
    noise = plan.sigma / plan.products.grid
    values, vectors = np.linalg.eigh(moments[: width + 1, : width + 1])
    raised = np.maximum(values, EDGE * noise * math.sqrt(width + 1))
    found: Vector = vectors @ ((vectors.T @ moments[: width + 1, -1]) / raised)
    return found
