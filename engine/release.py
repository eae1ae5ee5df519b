"""Exact integers in, noisy numbers out: the one place where noise meets private numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from engine.execution import Exact
from mechanisms import gaussian, laplace
from mechanisms.combined import NO_NOISE, CombinedNoise
from mechanisms.quantile_tree import NODES, node_counts
from mechanisms.randomness import Randomness
from planner.bounded_sql import SELECTION, is_spread_out, race_grid
from planner.bounding import Shape
from planner.domain import Value
from planner.narrowing import Key
from planner.price import Mechanism, Priced, PricedRelease
from planner.relation import Aggregate


@dataclass(frozen=True, slots=True)
class Released:
    """One noised column, ready to leave: a grid integer for each key of its key set.

    `mechanism`, `scale` and `step` are public and give its error. A choice of keys has the keys
    themselves and no values.
    """

    keys: tuple[Key, ...]
    values: tuple[int | float, ...]
    mechanism: Mechanism
    scale: float
    step: float
    width: int = 1  # numbers for each key, one key's after another's
    exact: tuple[Mapping[Any, int], ...] = ()  # insecure testing only: each key's values
    units: tuple[int, ...] = ()  # how many steps each key's number counts by, where not by one

    def numbers(self) -> list[int | float]:
        """The column in its own units; whole where the grid is whole."""
        if self.units:
            pairs = zip(self.values, self.units, strict=True)
            return [float(value * unit * self.step) for value, unit in pairs]
        if self.step == 1.0:
            return list(self.values)
        return [float(value * self.step) for value in self.values]

    def deviation(self) -> float:
        """Standard deviation of the noise (the widest, where keys have their own units)."""
        return self._spread() * self.step * max(self.units, default=1)

    def _spread(self) -> float:
        if self.mechanism is Mechanism.EXACT:
            return 0.0
        laplacian = self.mechanism is Mechanism.LAPLACE
        spread = laplace.deviation if laplacian else gaussian.deviation
        return spread(self.scale)

    def half_width(self, confidence: float) -> float:
        """Half-width of the noise's interval (the widest, where keys have their own units)."""
        return self._reach(confidence) * self.step * max(self.units, default=1)

    def half_widths(self, confidence: float) -> list[float]:
        """Half-width of each key's noise's interval, in the column's own units."""
        reach = self._reach(confidence) * self.step
        return [reach * unit for unit in self.units or (1,) * len(self.keys)]

    def _reach(self, confidence: float) -> float:
        if self.mechanism is Mechanism.EXACT:
            return 0.0
        laplacian = self.mechanism is Mechanism.LAPLACE
        quantile = laplace.quantile if laplacian else gaussian.quantile
        return quantile(self.scale, confidence)


@dataclass(frozen=True, slots=True)
class Combined(Released):
    """Numbers put together from released columns: post-processing, with the noise of all of them.

    `values` are in the column's own units (`step` is 1), and `scale` is that of one noise of the
    mechanism with the same deviation.
    """

    noise: CombinedNoise = NO_NOISE

    def deviation(self) -> float:
        return self.noise.deviation()

    def half_width(self, confidence: float) -> float:
        return self.noise.half_width(confidence) if self.noise.deviation() else 0.0


def choose_keys(
    release: PricedRelease, exact: Exact, randomness: Randomness | None
) -> Released:
    """Return the keys whose noisy count of patients reaches the threshold, in sorted order.

    Guarantee: a key without patients is never shown; a key of one patient alone is shown with
    probability at most the per-key delta that the plan charged (mechanisms/threshold.py). The
    order is that of the keys, so it tells nothing more. `randomness` None (testing only) shows
    every key.
    """
    selection, tau = release.selection, release.threshold
    if selection is None or tau is None:
        raise ValueError("this release has public keys; nothing is chosen")
    counts = {key: int(n) for key, n in exact.columns[SELECTION].items() if n > 0}
    present = sorted(counts, key=sort_key)
    noise = _noise(selection, len(present), randomness)
    shown = tuple(
        key for key, z in zip(present, noise, strict=True)
        if randomness is None or counts[key] + z >= tau
    )
    return Released(shown, (), selection.mechanism, selection.scale, 1.0)


def add_noise(
    priced: Priced, keys: tuple[Key, ...], exact: Mapping[Key, Any], randomness: Randomness | None
) -> Released:
    """Return a measure over a fixed key set with independent noise in every cell.

    Guarantee: the key set is public or already released. Every cell of it gets its own draw of
    the planned mechanism at the planned scale, empty cells as well, on the integer grid on which
    the sensitivity was computed: the sum of two integers is exact. `randomness` None means no
    noise and is reached in insecure testing only.
    """
    if is_spread_out(priced.bounded):
        return _spread_out(priced, keys, exact, randomness)
    noise = _noise(priced, len(keys), randomness)
    if priced.mechanism is Mechanism.EXACT and priced.grid.low == priced.grid.high == 0 and (
        randomness is not None
    ):
        values: tuple[int | float, ...] = tuple(0 for _ in keys)  # no row can move it
    else:
        values = tuple(exact.get(key, 0) + z for key, z in zip(keys, noise, strict=True))
    strategy = priced.bounded.strategy
    if not strategy.shifts:
        return Released(keys, values, priced.mechanism, priced.scale, priced.grid.step)
    shift = dict(strategy.shifts)
    units = tuple(2 ** shift[key] for key in keys)
    step = race_grid(priced.grid, strategy.truncations).step
    return Released(keys, values, priced.mechanism, priced.scale, step, units=units)


def _spread_out(
    priced: Priced, keys: tuple[Key, ...], exact: Mapping[Key, Any], randomness: Randomness | None
) -> Released:
    """Return the counts of a tree or histogram, or the truncations of a race.

    Every node, value and truncation has noise of its own.
    """
    step = 1.0
    if priced.bounded.strategy.shape is Shape.UNBOUNDED:
        raw = tuple(exact.get(key, {}) for key in keys)
        return Released(keys, (), priced.mechanism, priced.scale, 1.0, 0, raw)
    measure = priced.bounded.measure
    members: tuple[Value, ...] = ()
    if measure.aggregate is Aggregate.HISTOGRAM and measure.argument is not None:
        members = measure.argument.domain.members() or ()
    if priced.bounded.is_race:
        truncations = priced.bounded.strategy.rows
        members, step = tuple(range(truncations)), race_grid(priced.grid, truncations).step
    width = NODES if measure.aggregate is Aggregate.TREE else len(members)
    noise = _noise(priced, width * len(keys), randomness)
    values: list[int] = []
    for i, key in enumerate(keys):
        bins = exact.get(key, {})
        counts = (
            node_counts(bins).tolist() if measure.aggregate is Aggregate.TREE
            else [bins.get(member, 0) for member in members]
        )
        values.extend(n + z for n, z in zip(counts, noise[i * width : (i + 1) * width],
                                            strict=True))
    return Released(keys, tuple(values), priced.mechanism, priced.scale, step, width)


def _noise(priced: Priced, size: int, randomness: Randomness | None) -> list[int]:
    if randomness is None or size == 0 or priced.mechanism is Mechanism.EXACT:
        return [0] * size
    if priced.mechanism is Mechanism.LAPLACE:
        return [int(z) for z in laplace.sample(priced.scale, size, randomness)]
    return [int(z) for z in gaussian.sample(priced.scale, size, randomness)]


def sort_key(key: Key) -> tuple[tuple[int, Any], ...]:
    """Order keys by their values, NULL last."""
    return tuple((1, 0) if value is None else (0, _comparable(value)) for value in key)


def _comparable(value: Value) -> Any:
    return value.isoformat() if isinstance(value, date) else value


# ---- kept answers: released columns as JSON and back ---------------------------------------


def to_payload(released: Released) -> bytes:
    """Write a released column as JSON; whole numbers of any size stay exact."""
    noise = released.noise if isinstance(released, Combined) else None
    return json.dumps({
        "version": 1,
        "keys": [[_written(value) for value in key] for key in released.keys],
        "values": list(released.values),
        "mechanism": released.mechanism.value,
        "scale": released.scale.hex(),
        "step": released.step.hex(),
        "width": released.width,
        **({"units": list(released.units)} if released.units else {}),
        **({} if noise is None else {"noise": {
            "laplace": [[scale.hex(), count] for scale, count in noise.laplace],
            "normal": noise.normal.hex(), "step": noise.step.hex(),
        }}),
    }, separators=(",", ":")).encode()


def from_payload(payload: bytes) -> Released:
    """Read a released column back. Raises ValueError for anything `to_payload` did not write."""
    found = json.loads(payload)
    if found.get("version") != 1:
        raise ValueError(f"unknown version of a kept answer: {found.get('version')!r}")
    released = Released(
        tuple(tuple(_read(value) for value in key) for key in found["keys"]),
        tuple(found["values"]),
        Mechanism(found["mechanism"]),
        float.fromhex(found["scale"]),
        float.fromhex(found["step"]),
        int(found["width"]),
        units=tuple(map(int, found.get("units", ()))),
    )
    if "noise" not in found:
        return released
    noise = CombinedNoise(
        tuple((float.fromhex(scale), int(count)) for scale, count in found["noise"]["laplace"]),
        float.fromhex(found["noise"]["normal"]), float.fromhex(found["noise"]["step"]),
    )
    return Combined(released.keys, released.values, released.mechanism, released.scale,
                    released.step, released.width, noise=noise)


def _written(value: Value | None) -> Any:
    if isinstance(value, datetime):
        return {"timestamp": value.isoformat()}
    if isinstance(value, date):
        return {"date": value.isoformat()}
    return value


def _read(value: Any) -> Value | None:
    if isinstance(value, dict):
        if "timestamp" in value:
            return datetime.fromisoformat(value["timestamp"])
        return date.fromisoformat(value["date"])
    return value  # type: ignore[no-any-return]
