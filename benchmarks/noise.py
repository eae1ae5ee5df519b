"""How fast is exact noise, and does its time tell its size?

    python -m benchmarks.noise [--seconds 2] [--json]

One core. Targets at scale 1000: 8 million Laplace and 4 million Gaussian draws a second, and
|Spearman correlation| of the time of a single draw with its size below 0.05.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.common import give_out, machine, parser, target
from mechanisms import gaussian, laplace
from mechanisms.randomness import Randomness

SCALE = 1000.0
SINGLE_DRAWS = 20_000
SPEARMAN_LIMIT = 0.05
SPEED_TARGETS = {"ours, discrete Laplace": 8e6, "ours, discrete Gaussian": 4e6}


@dataclass(frozen=True, slots=True)
class Sampler:
    name: str
    exact: bool
    batch: int
    draw: Callable[[int], object]  # draws so many
    single: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Measured:
    name: str
    exact: bool
    draws_per_second: float
    batch: int
    spearman_time_size: float
    singles: int


def samplers() -> list[Sampler]:
    secure, generator, reference = Randomness.secure(), np.random.default_rng(), _reference()
    scale = Fraction(SCALE)

    def many(draw: Callable[[], float]) -> Callable[[int], object]:
        return lambda n: [draw() for _ in range(n)]

    def from_reference(law: Callable[[Fraction, Randomness], int]) -> Callable[[], float]:
        return lambda: law(scale, secure)

    found = [
        Sampler(
            f"ours, discrete {name}",
            True,
            1_000_000,
            lambda n, sample=sample: sample(SCALE, n, secure),  # type: ignore[misc]
            lambda sample=sample: int(sample(SCALE, 1, secure)[0]),  # type: ignore[misc]
        )
        for name, sample in (("Laplace", laplace.sample), ("Gaussian", gaussian.sample))
    ]
    for name, law in (("Laplace", reference.laplace), ("Gaussian", reference.gaussian)):
        one = from_reference(law)
        found.append(Sampler(f"integer-only reference, {name}", True, 1_000, many(one), one))
    found += [
        Sampler(
            "numpy float Laplace (not private)",
            False,
            1_000_000,
            lambda n: generator.laplace(0.0, SCALE, n),
            lambda: float(generator.laplace(0.0, SCALE)),
        ),
        Sampler(
            "numpy float Gaussian (not private)",
            False,
            1_000_000,
            lambda n: generator.normal(0.0, SCALE, n),
            lambda: float(generator.normal(0.0, SCALE)),
        ),
    ]
    return found + _diffprivlib(many)


def _diffprivlib(many: Callable[[Callable[[], float]], Callable[[int], object]]) -> list[Sampler]:
    try:
        from diffprivlib.mechanisms import (  # type: ignore[import-untyped]
            GaussianDiscrete,
            Geometric,
        )
    except ImportError:
        return []
    geometric = Geometric(epsilon=1 / SCALE, sensitivity=1)
    # Epsilon that makes its sigma about 1000 at delta 1e-6.
    discrete = GaussianDiscrete(epsilon=0.0038, delta=1e-6, sensitivity=1)

    def one_geometric() -> float:
        return float(geometric.randomise(0))

    def one_discrete() -> float:
        return float(discrete.randomise(0))

    return [
        Sampler("diffprivlib Geometric", False, 1_000, many(one_geometric), one_geometric),
        Sampler("diffprivlib GaussianDiscrete", True, 500, many(one_discrete), one_discrete),
    ]


def measure(sampler: Sampler, seconds: float) -> Measured:
    """Time batches for `seconds`, then single draws one by one; the median batch counts."""
    sampler.draw(sampler.batch)
    batches, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        sampler.draw(sampler.batch)
        batches.append(time.perf_counter() - start)
    singles = SINGLE_DRAWS if sampler.batch > 1_000 else SINGLE_DRAWS // 4
    times, sizes = np.empty(singles), np.empty(singles)
    for i in range(singles):
        begin = time.perf_counter_ns()
        drawn = sampler.single()
        times[i] = time.perf_counter_ns() - begin
        sizes[i] = abs(drawn)
    spearman = float(stats.spearmanr(times, sizes).statistic)
    speed = sampler.batch / statistics.median(batches)
    return Measured(sampler.name, sampler.exact, speed, sampler.batch, spearman, singles)


def _reference() -> ModuleType:
    """Load the reference sampler from beside its tests: it is no part of the product."""
    path = Path(__file__).parents[1] / "tests" / "mechanisms" / "reference.py"
    spec = importlib.util.spec_from_file_location("noise_reference", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def targets(found: list[Measured]) -> list[dict[str, Any]]:
    """Hold our samplers against the targets."""
    held = []
    for row in found:
        if row.name in SPEED_TARGETS:
            held += [
                target(f"{row.name}: draws a second", row.draws_per_second,
                       SPEED_TARGETS[row.name], at_least=True),
                target(f"{row.name}: |Spearman(time, size)|", abs(row.spearman_time_size),
                       SPEARMAN_LIMIT),
            ]  # fmt: skip
    return held


def table(found: list[Measured]) -> str:
    """Print what was found."""
    lines = [f"{'sampler':36} {'exact':>5} {'draws/s':>14} {'Spearman(time, size)':>21}"]
    lines += [
        f"{row.name:36} {'yes' if row.exact else 'no':>5} {row.draws_per_second:14,.0f} "
        f"{row.spearman_time_size:21.3f}"
        for row in found
    ]
    return "\n".join(lines)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=2.0, help="batch time for each sampler")
    asked = options.parse_args()
    found = [measure(sampler, asked.seconds) for sampler in samplers()]
    document = {
        "machine": machine("scipy", "cryptography", "diffprivlib"), "scale": SCALE,
        "results": [asdict(row) for row in found], "targets": targets(found),
    }  # fmt: skip
    give_out(document, asked, table(found))


if __name__ == "__main__":
    main()
