"""Settings in, a priced training run out: sampling, steps and noise, fixed before a row is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import Any

from mechanisms.conversion import epsilon_at
from mechanisms.event import MULTIPLIER_MIN, Phase, RepeatedEvent, SampledGaussianEvent
from mechanisms.loss import PrivacyLoss
from mechanisms.pricing import loss_of
from mechanisms.repetition import Repetitions
from mechanisms.sampled import multiplier_for, repeated_multiplier_for
from mechanisms.sampled import rdp as rdp_of
from models.adaptive_clip import AdaptiveClip
from models.clipping import Clip
from models.encoding import PICTURES, Encoding, Task
from planner.refusal import Refused

FULL_BATCH_BELOW = 5_000  # patients; below it a sample has nothing to gain
SHARE_MAX = 0.9
PLATEAUS = 8  # of a noise schedule
CLASSES_SHARE = 0.02  # of a run's divergence, for the count of patients by class
CENTRES_SHARE = 0.15  # of what importance costs, for the middle from which means are measured
MEANS_ROUNDS = 2  # how often importance asks for the means of classes
CLIP_START = 1.0  # of an adaptive clip, where neither the call nor the family names one
PROGRESS_ORDERS = tuple(map(Fraction, (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)))
Plateaus = tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train; None means the family's default. All of it is public and chosen beforehand.

    `batch` is the expected number of patients in a step (None: all of them, where the family
    or the table is small); `holdout` the share of patients kept for the metrics; `clip` the norm
    at which a patient's gradient is clipped (None: the family's way, models/clipping.py);
    `learning_rate` and `decay` (weight decay) act after the noise; `hidden` are layers of "mlp";
    `importance` is the share of the run's divergence that buys a noisy measure of each feature's
    worth, by which inputs are scaled (0: none), and `importance_by` says by what it is measured
    ("means" or "information", models/importance.py). `optimizer` is "adam", or
    "sgd" with momentum: the default where importance is bought, because Adam divides each
    parameter's step by its own size and so takes back what the scaling gave, and for "mlp" on
    small tables. `solver` "statistics" fits "linear" to one noisy vector of sums
    (models/statistics.py) in place of descent. `trees` and `depth` are those of a forest.
    `loss` "poisson" reads a whole number from 0 up as a count, whose rate is the exponential of a
    score; None is the family's own loss.
    `embedding` names categories that "mlp" looks up in a learned table, with the length of its
    vectors: {"diagnosis": 8}.

    Noise that adapts, each at the same price: `clip_quantile` moves the clip norm, which starts
    at `clip`, towards that quantile of the gradients' norms by noised votes
    (models/adaptive_clip.py); `clip_layers` does so for each layer by itself; `noise_end` is the
    last step's noise over the first's, in PLATEAUS steps of one ratio. `class_weights` buys a
    noisy count of patients by class, and weighs rare classes up.
    """

    steps: int | None = None
    batch: int | None = None
    holdout: float = 0.2
    clip: float | None = None
    learning_rate: float | None = None
    decay: float | None = None
    hidden: tuple[int, ...] = (32,)
    importance: float = 0.0
    importance_by: str = "means"
    optimizer: str | None = None
    solver: str = "descent"
    embedding: tuple[tuple[str, int], ...] = ()
    loss: str | None = None
    trees: int | None = None
    depth: int | None = None
    clip_quantile: float | None = None
    clip_layers: bool = False
    noise_end: float = 1.0
    class_weights: bool = False

    def __post_init__(self) -> None:
        _check("steps", self.steps, lambda n: type(n) is int and 1 <= n <= 1_000_000, "steps=100")
        _check("batch", self.batch, lambda n: type(n) is int and n >= 1, "batch=512")
        _check("holdout", self.holdout, lambda h: 0 <= h <= SHARE_MAX, "holdout=0.2")
        for name in ("clip", "learning_rate"):
            _check(name, getattr(self, name), lambda x: 0 < x < math.inf, f"{name}=1.0")
        _check("optimizer", self.optimizer, lambda x: x in ("adam", "sgd"), "optimizer='sgd'")
        _check("embedding", self.embedding, lambda t: all(
            isinstance(n, str) and type(s) is int and 1 <= s <= 256 for n, s in t
        ) and len({n for n, _ in t}) == len(t), "embedding={'diagnosis': 8}")
        _check("trees", self.trees, lambda n: type(n) is int and 1 <= n <= 256, "trees=32")
        _check("depth", self.depth, lambda n: type(n) is int and 1 <= n <= 12, "depth=5")
        _check("loss", self.loss, lambda x: x == "poisson", "loss='poisson'")
        _check("solver", self.solver, lambda x: x in ("descent", "statistics"),
               "solver='statistics'")
        _check("importance_by", self.importance_by, lambda x: x in ("means", "information"),
               "importance_by='means'")
        _check("importance", self.importance, lambda x: 0 <= x <= 0.5, "importance=0.1")
        _check("clip_quantile", self.clip_quantile, lambda x: 0 < x < 1, "clip_quantile=0.7")
        _check("noise_end", self.noise_end, lambda x: 0.1 <= x <= 10, "noise_end=0.5")
        for name in ("clip_layers", "class_weights"):
            if type(getattr(self, name)) is not bool:
                raise Refused("model", f"{name} cannot be {getattr(self, name)!r}", f"{name}=True")
        if self.clip_layers and self.clip_quantile is None:
            raise Refused("model", "clip_layers needs the quantile that each layer's norm follows",
                          "clip_quantile=0.7, clip_layers=True")
        _check("decay", self.decay, lambda x: 0 <= x < 1, "decay=0.01")
        _check("hidden", self.hidden, lambda w: isinstance(w, tuple) and len(w) <= 8 and all(
            type(n) is int and 1 <= n <= 4096 for n in w), "hidden=(64, 64)")


def _check(name: str, value: Any, is_valid: Any, hint: str) -> None:
    try:
        good = value is None or (not isinstance(value, bool) and bool(is_valid(value)))
    except TypeError:
        good = False
    if not good:
        raise Refused("model", f"{name} cannot be {value!r}", hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a family uses where the settings say nothing."""

    steps: float  # times the root of the public number of patients
    steps_max: int = 1_000
    learning_rate: float
    sgd_rate: float = 1.0
    even_share: float = 1.0  # of that rate, where importance gave all inputs one spread
    small_optimizer: str = "adam"  # below FULL_BATCH_BELOW patients
    decay: float
    always_full: bool = False
    batch: int = 512
    clip: float | None = None

    def steps_for(self, units: int) -> int:
        """Return how many steps a table of that public size gets.

        The noise of a whole run does not depend on their number much; what is left of it, next
        to the signal, falls with the number of patients, so that larger tables bear more steps.
        """
        return max(10, min(self.steps_max, round(self.steps * math.sqrt(units))))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """A run before it is paid: free to ask, and the same for every database of the policy.

    `units` is the public number of patients that batch sizes are worked out from; `rate` is the
    probability with which a patient is in a step's batch; `expected` is what the noisy sum is
    divided by. `multiplier` is the noise on the sum of gradients, each of norm at most 1.
    """

    family: str
    encoding: Encoding
    settings: Settings
    units: int
    rate: float
    steps: int
    optimizer: str
    learning_rate: float
    decay: float
    clip: Clip
    multiplier: float
    held_multiplier: float | None
    importance_multiplier: float | None
    centres_multiplier: float | None = None
    classes_multiplier: float | None = None
    adaptive: AdaptiveClip | None = None
    plateaus: Plateaus = ()
    parameters: int
    network: str
    event: SampledGaussianEvent
    cost: PrivacyLoss
    statement: str = field(repr=False, default="")

    @property
    def expected(self) -> float:
        """The expected number of patients in a step, from public numbers only."""
        return max(1.0, self.rate * self.units * (1 - self.settings.holdout))

    def multiplier_at(self, step: int) -> float:
        """Return the noise of a step (from 0): its plateau's factor times the first's."""
        for factor, steps in self.plateaus:
            if step < steps:
                return self.multiplier * factor
            step -= steps
        return self.multiplier

    def epsilon_after(self, steps: int) -> float:
        """Return an epsilon that so many steps have cost, for a progress bar: a public number.

        By Renyi divergences, which are quick and a little pessimistic; never above the price. What
        is charged is always the whole run.
        """
        training = self.event.branches[0]
        bought = training[: len(training) - len(self.plateaus)]
        taken = []
        for rate, multiplier, count in training[len(bought) :]:
            taken.append((rate, multiplier, min(count, steps)))
            steps = max(0, steps - count)
        phases = (*bought, *(phase for phase in taken if phase[2]))
        spent = (epsilon_at(a, rdp_of(phases, a), self.event.delta) for a in PROGRESS_ORDERS)
        return min(self.cost.epsilon, float(min(spent)))

    @property
    def signal(self) -> float:
        """The largest norm of a step's mean gradient over the norm of the noise on it.

        Below about 0.05 even agreeing patients are drowned in every single step; what the steps
        have in common still adds up, by the square root of their number.
        """
        return self.expected / (self.multiplier * math.sqrt(self.parameters))

    def facts(self) -> dict[str, Any]:
        """Return all of it as plain values: what is hashed, kept and shown."""
        return {
            "family": self.family, "units": self.units, "rate": self.rate, "steps": self.steps,
            "optimizer": self.optimizer, "learning_rate": self.learning_rate,
            "decay": self.decay, "clip": self.clip.norm,
            "multiplier": self.multiplier, "held_multiplier": self.held_multiplier,
            "importance_multiplier": self.importance_multiplier,
            "centres_multiplier": self.centres_multiplier,
            "classes_multiplier": self.classes_multiplier,
            "adaptive": None if self.adaptive is None else asdict(self.adaptive),
            "plateaus": self.plateaus, "network": self.network,
            "parameters": self.parameters, "settings": asdict(self.settings),
            "encoding": self.encoding.to_dict(),
        }

    def card_facts(self) -> dict[str, Any]:
        """Return what the model's card says of the run."""
        return {"steps": self.steps, "sampling rate": self.rate,
                "noise multiplier": self.multiplier}

    def __str__(self) -> str:
        batch = "all patients" if self.rate == 1.0 else (
            f"each patient with probability {self.rate:.4g} (about {self.expected:,.0f})"
        )
        lines = [
            f"training a {self.family} model of {self.parameters:,} parameters on "
            f"{len(self.encoding.features)} features for {self.encoding.label.name}",
            f"  cost              {self.cost}",
            f"  steps             {self.steps} over {batch}",
            f"  noise multiplier  {self.multiplier:.4g}",
            f"  expected signal   {self.signal:.2g} of the noise in one step, "
            f"{self.signal * math.sqrt(self.steps):.2g} over all",
        ]
        if self.importance_multiplier is not None:
            lines.append(
                f"  importance        {self.settings.importance:.0%} of the divergence, "
                f"{self.settings.importance_by} with noise {self.importance_multiplier:.3g}, "
                "within the same price"
            )
        if self.adaptive is not None:
            many = len(self.adaptive.groups)
            each = "of each layer " if many > 1 else ""
            lines.append(f"  clip norm         {each}follows the {self.adaptive.quantile:.0%} "
                         f"quantile, for {self.adaptive.votes:.2%} of each step")
        if len(self.plateaus) > 1:
            last = self.multiplier_at(self.steps - 1)
            lines.append(f"  noise schedule    to {last:.4g} in {len(self.plateaus)} plateaus")
        if self.classes_multiplier is not None:
            lines.append(f"  class weights     from counts with noise "
                         f"{self.classes_multiplier:.3g}, within the same price")
        if self.held_multiplier is not None:
            lines.append(
                f"  metrics           on {self.settings.holdout:.0%} of the patients, counts with "
                f"noise {self.held_multiplier:.3g}, within the same price"
            )
        return "\n".join(lines)


def plan_run(
    family: str, encoding: Encoding, settings: Settings, defaults: Defaults, parameters: int,
    units: int, epsilon: Fraction, delta: Fraction, order: Fraction, network: str = "",
    groups: tuple[int, ...] = (), law: Repetitions | None = None,
) -> RunPlan:
    """Work out sampling and steps from public numbers, and the noise from epsilon.

    With a `law` epsilon is the price of the best of as many such runs (models/tuning.py).

    Guarantee: the event is fixed here, before any row is read; its price on rail A is at most
    (epsilon, delta). Held-out patients are told from training patients by a coin that depends on
    no data, so the metrics on them cost the larger of the two prices and not the sum; their
    noise is raised until neither rail pays more for them than for the training.
    """
    if not delta > 0:
        raise Refused("delta", "training needs a delta above zero", "delta=1e-6")
    if settings.importance > 0 and any(f.coding in PICTURES for f in encoding.features):
        raise Refused("model", "an image is one feature; there is no importance to buy",
                      "importance=0")
    steps = settings.steps or defaults.steps_for(units)
    rate = _rate(settings, defaults, units)
    plateaus = _plateaus(steps, settings.noise_end)
    bought = _bought(settings, encoding)
    optimizer = settings.optimizer or ("sgd" if settings.importance > 0 else (
        defaults.small_optimizer if units < FULL_BATCH_BELOW else "adam"))
    try:
        phases = _phases(rate, plateaus, bought)
        fitting = multiplier_for if law is None else partial(_repeated, law)
        multiplier = fitting(phases, epsilon, delta)
        training = phases(multiplier)
        branches: tuple[tuple[Phase, ...], ...] = (training,)
        held = None
        if settings.holdout > 0:
            held = fitting(lambda z: ((1.0, z, 1),), epsilon, delta)
            held = max(held, math.sqrt(float(order / (2 * rdp_of(training, order)))) * (1 + 1e-9))
            branches = (training, ((1.0, held, 1),))
        event = SampledGaussianEvent(branches, delta)
    except ValueError as problem:
        raise Refused("epsilon", f"no run of {steps} steps has this price: {problem}",
                      "an epsilon between 0.1 and 10, or fewer steps") from None
    multipliers = {name: phase[1] for name, phase in zip(bought, training, strict=False)}
    norm = settings.clip if settings.clip is not None else defaults.clip
    plan = RunPlan(
        family=family, encoding=encoding, settings=settings, units=units, rate=rate, steps=steps,
        optimizer=optimizer,
        learning_rate=settings.learning_rate or _learning_rate(settings, defaults, optimizer),
        decay=defaults.decay if settings.decay is None else settings.decay,
        clip=Clip(norm), plateaus=plateaus,
        multiplier=multiplier, held_multiplier=held, parameters=parameters, event=event,
        network=network,
        importance_multiplier=multipliers.get("importance"),
        centres_multiplier=multipliers.get("centres"),
        classes_multiplier=multipliers.get("classes"),
        cost=loss_of((event if law is None else RepeatedEvent(
            event.branches, event.branches[-1], law.name, law.gamma, delta),), order),
    )
    if settings.clip_quantile is None:
        return plan
    return replace(plan, adaptive=AdaptiveClip.of(
        settings.clip_quantile, groups if settings.clip_layers and groups else (parameters,),
        norm or CLIP_START, multiplier, plan.expected))


def _repeated(
    law: Repetitions, phases: Callable[[float], tuple[Phase, ...]], epsilon: Fraction,
    delta: Fraction,
) -> float:
    return repeated_multiplier_for(phases, law, epsilon, delta)


def _learning_rate(settings: Settings, defaults: Defaults, optimizer: str) -> float:
    """Return a family's rate; inputs of one spread are learned in fewer and smaller steps."""
    if optimizer != "sgd":
        return defaults.learning_rate
    is_even = settings.importance > 0 and settings.importance_by == "means"
    return defaults.sgd_rate * (defaults.even_share if is_even else 1.0)


def _bought(settings: Settings, encoding: Encoding) -> dict[str, tuple[float, int]]:
    """Return what is bought before the first step: its share of the run's divergence, and in how
    many releases."""
    found = {}
    if settings.importance > 0:
        found["importance"] = settings.importance, 1
        if settings.importance_by == "means":
            centres = CENTRES_SHARE * settings.importance
            found["importance"] = settings.importance - centres, MEANS_ROUNDS
            found["centres"] = centres, 1
    if settings.class_weights:
        if not is_classified(encoding):
            raise Refused("model", f"{encoding.label.name} is a number, without classes to weigh",
                          "class_weights=False")
        found["classes"] = CLASSES_SHARE, 1
    return found


def _plateaus(steps: int, noise_end: float) -> Plateaus:
    """Return (factor, steps) of each plateau: how much noise there is by the step's number alone.

    Factors are rounded to 10 bits, so that a factor times a multiplier of few bits is exact.
    """
    count = 1 if noise_end == 1.0 else min(PLATEAUS, steps)
    ends = [round(steps * (i + 1) / count) for i in range(count)]
    factors = [round(noise_end ** (i / max(1, count - 1)) * 2**10) / 2**10 for i in range(count)]
    return tuple((factor, end - begin) for factor, begin, end in zip(
        factors, [0, *ends[:-1]], ends, strict=True) if end > begin)


def _phases(
    rate: float, plateaus: Plateaus, bought: Mapping[str, tuple[float, int]]
) -> Callable[[float], tuple[Phase, ...]]:
    """Return the phases of a run for a noise multiplier: what is bought first, then the steps.

    What is bought has a share of the run's divergence as it adds up for small rates, rate^2 / z^2
    a step: its multiplier is z / (rate sqrt(share / (1 - all shares) steps / releases)).
    """
    steps = math.fsum(count / factor**2 for factor, count in plateaus)
    rest = 1 - sum(share for share, _ in bought.values())
    ratios = [(1 / (rate * math.sqrt(share / rest * steps / count)), count)
              for share, count in bought.values()]
    return lambda z: (
        *((1.0, max(z * ratio, MULTIPLIER_MIN), count) for ratio, count in ratios),
        *((rate, z * factor, count) for factor, count in plateaus),
    )


def _rate(settings: Settings, defaults: Defaults, units: int) -> float:
    """Return the sampling rate: 1 for small tables, else batch over units, never above 1."""
    share = 1 - settings.holdout
    if settings.batch is None and (defaults.always_full or units < FULL_BATCH_BELOW):
        return 1.0
    batch = settings.batch or defaults.batch
    return min(1.0, batch / max(1.0, units * share))


def settings_from(options: Mapping[str, Any]) -> Settings:
    """Read the options of a call. Raises Refused for a name that is no setting."""
    known = set(Settings.__slots__)
    strange = sorted(set(options) - known)
    if strange:
        raise Refused("model", f"no setting {strange[0]}", ", ".join(sorted(known)))
    given = dict(options)
    if isinstance(given.get("hidden"), list):
        given["hidden"] = tuple(given["hidden"])
    tables = given.get("embedding")
    if isinstance(tables, Mapping):
        given["embedding"] = tuple(tables.items())
    elif isinstance(tables, list):  # as JSON keeps it
        given["embedding"] = tuple(map(tuple, tables))
    return Settings(**given)


def is_classified(encoding: Encoding) -> bool:
    """Return whether the label is a class."""
    return encoding.task in (Task.BINARY, Task.CLASSES)
