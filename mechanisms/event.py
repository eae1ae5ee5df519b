"""What was released, as frozen facts without arithmetic: fields in, versioned JSON in and out.

A ledger keeps these for ever. So a kind is never removed, a field never changes its meaning,
and a new mechanism gets a new kind. Sensitivities and scales are counted in grid steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from mechanisms import shuffling
from mechanisms.gaussian import check_delta, rho
from mechanisms.gradual import scales_of
from mechanisms.laplace import check_l1, check_scale
from mechanisms.repetition import Repetitions

VERSION: Final = 1
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class LaplaceEvent:
    """Discrete Laplace noise of one scale on a vector that a unit moves by at most `l1` in L1."""

    l1: int
    scale: float

    def __post_init__(self) -> None:
        check_l1(self.l1)
        check_scale(self.scale)


@dataclass(frozen=True, slots=True)
class GaussianEvent:
    """Discrete Gaussian noise on several columns at once, answered as one joint release.

    Each part is (squared L2 distance a unit can move that column, over all its groups; sigma).
    `delta` is where its epsilon is quoted on rail A; rail B does not need it.
    """

    parts: tuple[tuple[int, float], ...]
    delta: Fraction

    def __post_init__(self) -> None:
        if not (isinstance(self.parts, tuple) and all(map(_is_pair, self.parts))):
            raise ValueError(f"parts must be a tuple of (l2_squared, sigma), got {self.parts!r}")
        rho(self.parts)
        check_delta(_check_fraction("delta", self.delta))


@dataclass(frozen=True, slots=True)
class ThresholdEvent:
    """Partition selection: a key of one unit alone is shown with probability at most `delta`.

    The noise on the counts that are compared with the threshold is an event of its own.
    """

    delta: Fraction

    def __post_init__(self) -> None:
        if not 0 < _check_fraction("delta", self.delta) < 1:
            raise ValueError(f"delta must lie strictly between 0 and 1, got {self.delta!r}")


@dataclass(frozen=True, slots=True)
class PureEvent:
    """Any mechanism that is `epsilon`-DP, such as randomized response or report noisy max."""

    epsilon: Fraction

    def __post_init__(self) -> None:
        if not _check_fraction("epsilon", self.epsilon) > 0:
            raise ValueError(f"epsilon must be positive, got {self.epsilon!r}")


@dataclass(frozen=True, slots=True)
class ExponentialEvent:
    """The exponential mechanism: an outcome with probability ~ exp(epsilon * score / (2 D)).

    D is how far one unit can move any score. Not for permute-and-flip, nor for report noisy
    max with Laplace noise: those are `PureEvent`.
    """

    epsilon: Fraction

    def __post_init__(self) -> None:
        if not _check_fraction("epsilon", self.epsilon) > 0:
            raise ValueError(f"epsilon must be positive, got {self.epsilon!r}")


@dataclass(frozen=True, slots=True)
class GradualEvent:
    """Discrete Laplace noise on one vector, revealed from coarse to fine (mechanisms/gradual.py).

    Of its `levels` the finest has `scale`; the others are `gradual.scales_of`. It costs the finest
    until the charge is settled at the level that was revealed.
    """

    l1: int
    scale: float
    levels: int

    def __post_init__(self) -> None:
        check_l1(self.l1)
        scales_of(self.scale, self.levels)


Phase = tuple[float, float, int]
STEPS_MAX: Final = 10**7
MULTIPLIER_MIN, MULTIPLIER_MAX = 2.0**-6, 2.0**30


@dataclass(frozen=True, slots=True)
class SampledGaussianEvent:
    """Gaussian noise on sums over Poisson samples of units: a training run, fixed in advance.

    A phase (rate, multiplier, steps) is `steps` releases in a row: each takes every unit
    independently with probability `rate`, and adds noise of `multiplier` times the L2 norm that
    one unit can have in the sum. Rate 1.0 is a release over all units. The phases of a branch
    follow one another, each chosen with the earlier answers in view. Where there are several
    branches, a coin that depends on no data puts each unit into one of them (training or
    held-out patients). `delta` is where its epsilon is quoted on rail A.
    """

    branches: tuple[tuple[Phase, ...], ...]
    delta: Fraction

    def __post_init__(self) -> None:
        _check_branches(self.branches)
        check_delta(_check_fraction("delta", self.delta))


@dataclass(frozen=True, slots=True)
class RepeatedEvent:
    """The best of K runs of a mechanism, K of a law of repetition.Repetitions.

    A run is one of those of SampledGaussianEvent: a patient is in one of its `branches`, which
    are those of every setting that a run may be drawn to have. A patient that a coin puts in none
    of them is in `once`: the phases that follow the choice, and measure what was chosen.
    """

    branches: tuple[tuple[Phase, ...], ...]
    once: tuple[Phase, ...]
    law: str
    gamma: Fraction
    delta: Fraction

    def __post_init__(self) -> None:
        _check_branches(self.branches)
        _check_branches((self.once,))
        Repetitions(self.law, _check_fraction("gamma", self.gamma))
        check_delta(_check_fraction("delta", self.delta))


@dataclass(frozen=True, slots=True)
class ShuffledEvent:
    """`rows` rows, each noised by a randomizer that is `local`-DP, in a uniformly random order.

    Adding or removing a unit replaces one row. `delta` is what its epsilon is worked out at; no
    rail is spared it.
    """

    local: Fraction
    rows: int
    delta: Fraction

    def __post_init__(self) -> None:
        _check_fraction("local", self.local)
        shuffling.check(self.local, self.rows, _check_fraction("delta", self.delta))


Event = (
    LaplaceEvent | GaussianEvent | ThresholdEvent | PureEvent | ExponentialEvent | GradualEvent
    | SampledGaussianEvent | RepeatedEvent | ShuffledEvent
)


def to_json(events: tuple[Event, ...]) -> str:
    """Return the one canonical text of these events; floats and fractions are exact."""
    listed = [_written(event) for event in events]
    return json.dumps({"version": VERSION, "events": listed}, sort_keys=True, separators=(",", ":"))


def from_json(text: str) -> tuple[Event, ...]:
    """Return the events of a canonical text.

    Guarantee: a text that `to_json` would not have written is refused with ValueError: unknown
    versions, kinds and fields, missing fields, wrong types, numbers that are not finite. No
    code is looked up by a name in the text.
    """
    try:
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("version") != VERSION:
            raise ValueError(f"the version must be {VERSION}")
        events = tuple(_read(entry) for entry in document["events"])
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a list of privacy events: {type(error).__name__}") from error
    if to_json(events) != text:
        raise ValueError("the events are not in canonical form, or have fields unknown here")
    return events


def _written(event: Event) -> dict[str, Json]:
    match event:
        case LaplaceEvent(l1, scale):
            return {"kind": "laplace", "l1": l1, "scale": scale.hex()}
        case GaussianEvent(parts, delta):
            pairs: list[Json] = [[l2_squared, sigma.hex()] for l2_squared, sigma in parts]
            return {"kind": "gaussian", "parts": pairs, "delta": str(delta)}
        case ThresholdEvent(delta):
            return {"kind": "threshold", "delta": str(delta)}
        case PureEvent(epsilon):
            return {"kind": "pure", "epsilon": str(epsilon)}
        case ExponentialEvent(epsilon):
            return {"kind": "exponential", "epsilon": str(epsilon)}
        case GradualEvent(l1, scale, levels):
            return {"kind": "gradual", "l1": l1, "scale": scale.hex(), "levels": levels}
        case SampledGaussianEvent(branches, delta):
            listed = [_written_phases(branch) for branch in branches]
            return {"kind": "sampled gaussian", "branches": listed, "delta": str(delta)}
        case RepeatedEvent(branches, once, law, gamma, delta):
            listed = [_written_phases(branch) for branch in branches]
            return {"kind": "best of repeated", "branches": listed, "law": law,
                    "once": _written_phases(once), "gamma": str(gamma), "delta": str(delta)}
        case ShuffledEvent(local, rows, delta):
            return {"kind": "shuffled", "local": str(local), "rows": rows, "delta": str(delta)}
    raise ValueError(f"not a privacy event: {event!r}")


def _written_phases(phases: tuple[Phase, ...]) -> Json:
    return [[rate.hex(), multiplier.hex(), steps] for rate, multiplier, steps in phases]


_Fields = Mapping[str, object]
_READERS: Final[Mapping[str, Callable[[_Fields], Event]]] = {
    "laplace": lambda f: LaplaceEvent(_integer(f["l1"]), _float(f["scale"])),
    "gaussian": lambda f: GaussianEvent(_parts(f["parts"]), read_fraction(f["delta"])),
    "threshold": lambda f: ThresholdEvent(read_fraction(f["delta"])),
    "pure": lambda f: PureEvent(read_fraction(f["epsilon"])),
    "exponential": lambda f: ExponentialEvent(read_fraction(f["epsilon"])),
    "gradual": lambda f: GradualEvent(
        _integer(f["l1"]), _float(f["scale"]), _integer(f["levels"])
    ),
    "sampled gaussian": lambda f: SampledGaussianEvent(
        _branches(f["branches"]), read_fraction(f["delta"])
    ),
    "best of repeated": lambda f: RepeatedEvent(
        _branches(f["branches"]), _branches([f["once"]])[0], _text(f["law"]),
        read_fraction(f["gamma"]), read_fraction(f["delta"]),
    ),
    "shuffled": lambda f: ShuffledEvent(
        read_fraction(f["local"]), _integer(f["rows"]), read_fraction(f["delta"])
    ),
}


def _read(entry: object) -> Event:
    if not isinstance(entry, dict):
        raise ValueError(f"a privacy event must be an object, got {entry!r}")
    reader = _READERS.get(entry["kind"])
    if reader is None:
        known = ", ".join(sorted(_READERS))
        raise ValueError(f"unknown kind of event {entry['kind']!r}; known are {known}")
    return reader(entry)


def _integer(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"an integer is needed, got {value!r}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a text is needed, got {value!r}")
    return value


def _float(value: object) -> float:
    if not isinstance(value, str):
        raise ValueError(f"a float is written as hexadecimal text, got {value!r}")
    return float.fromhex(value)


def read_fraction(value: object) -> Fraction:
    """Return the fraction written as "3" or "3/1000".

    Exponents are refused: "1e999999999" would take all memory.
    """
    if not isinstance(value, str):
        raise ValueError(f"a fraction is written as text, got {value!r}")
    above, _, below = value.partition("/")
    if not (above.isdecimal() and (below or "1").isdecimal() and int(below or "1") > 0):
        raise ValueError(f"a fraction is written as 3 or 3/1000, got {value!r}")
    return Fraction(int(above), int(below or "1"))


def _parts(value: object) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, list):
        raise ValueError(f"parts are written as a list, got {value!r}")
    return tuple((_integer(l2_squared), _float(sigma)) for l2_squared, sigma in value)


def _branches(value: object) -> tuple[tuple[Phase, ...], ...]:
    if not (isinstance(value, list) and all(isinstance(branch, list) for branch in value)):
        raise ValueError(f"branches are written as a list of lists, got {value!r}")
    return tuple(
        tuple((_float(rate), _float(multiplier), _integer(steps))
              for rate, multiplier, steps in branch)
        for branch in value
    )


def _check_branches(branches: tuple[tuple[Phase, ...], ...]) -> None:
    if not (_is_filled(branches) and all(map(_is_filled, branches)) and all(
        _is_phase(phase) for branch in branches for phase in branch
    )):
        raise ValueError(
            "branches must be a tuple of tuples of (0 < rate <= 1, 2**-6 <= multiplier <= "
            f"2**30, 1 <= steps <= {STEPS_MAX}), got {branches!r}"
        )


def _is_filled(value: object) -> bool:
    return isinstance(value, tuple) and len(value) > 0


def _is_phase(phase: object) -> bool:
    if not (isinstance(phase, tuple) and len(phase) == 3):
        return False
    rate, multiplier, steps = phase
    return (
        isinstance(rate, float) and 0 < rate <= 1
        and isinstance(multiplier, float) and MULTIPLIER_MIN <= multiplier <= MULTIPLIER_MAX
        and type(steps) is int and 1 <= steps <= STEPS_MAX
    )


def _is_pair(part: object) -> bool:
    return isinstance(part, tuple) and len(part) == 2


def _check_fraction(name: str, value: Fraction) -> Fraction:
    if not isinstance(value, Fraction):
        raise ValueError(f"{name} must be a Fraction, so that it is exact, got {value!r}")
    return value
