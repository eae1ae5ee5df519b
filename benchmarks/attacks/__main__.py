"""How much do attackers learn of single patients? Each attack on three curators.

    python -m benchmarks.attacks [--quick] [--json]

Exact answers, noise without a budget (epsilon as stated for every answer, nobody adds up), and
Discreet under (1, 1e-6) in total, on the same code and rows. Everything is the share of right
guesses about one hidden bit of a patient unless stated; a coin has 50 %. Targets: linear
reconstruction of 256 patients from 1,024 counts at most 52 % over at least 50 databases, and at
least 95 % without a budget; membership from 5,000 means at most 2.7 % true positives at 1 % false
ones; differencing all patients at most 55 %; averaging 10,000 answers of ten analysts no better
than one answer, for one charge.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from benchmarks.attacks import averaging, census, differencing, linkage, membership, query_search
from benchmarks.attacks.curators import Kind
from benchmarks.attacks.reconstruction import reconstruct
from benchmarks.common import give_out, machine, parser, target

KINDS = (Kind.EXACT, Kind.UNBUDGETED, Kind.DISCREET)
EPSILONS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
BIT_BOUND = math.e / (1 + math.e)  # of right guesses about one bit, at a total epsilon of 1
Found = dict[str, dict[str, Any]]


def summary(numbers: Iterable[float]) -> dict[str, float]:
    """Return how many there are, their mean and its standard error."""
    found = [float(x) for x in numbers]
    spread = stdev(found) / math.sqrt(len(found)) if len(found) > 1 else 0.0
    return {"runs": len(found), "mean": round(fmean(found), 5), "error": round(spread, 5)}


def reconstructions(folder: Path, sizes: Mapping[Kind, int]) -> Found:
    """Linear reconstruction by least squares and by linear programs."""
    found: Found = {}
    for kind in KINDS:
        share, runs = None, []
        for seed in range(sizes[kind]):
            runs.append(reconstruct(kind, folder / f"lin-{kind.name}-{seed}", seed, share=share,
                                    linear=True))
            share = runs[-1]["share"]
        found[kind.value] = {
            "least squares": summary(run["least squares"] for run in runs),
            "linear program": summary(run["linear program"] for run in runs),
            "asked": runs[0]["asked"],
        }
    return found


def curve(folder: Path, databases: int) -> list[dict[str, float]]:
    """Reconstruction accuracy by epsilon: of each answer without a budget, of all together with."""
    points = []
    for i, epsilon in enumerate(EPSILONS):
        point = {"epsilon": epsilon}
        for kind in (Kind.UNBUDGETED, Kind.DISCREET):
            share, right = None, []
            for seed in range(databases):
                run = reconstruct(kind, folder / f"curve-{i}-{kind.name}-{seed}", 500 + seed,
                                  epsilon=epsilon, each=epsilon, share=share)
                share = run["share"]
                right.append(run["least squares"])
            point[kind.value] = round(fmean(right), 4)
        points.append(point)
    return points


def differences(folder: Path, targets: int, databases: int) -> Found:
    """Differencing and trackers: everything on one patient, and on all in turn."""
    found: Found = {}
    ways: dict[str, dict[str, bool]] = {
        "one patient, two counts": {}, "one patient, tracker": {"by_tracker": True},
        "one patient, one count": {"direct": True},
    }
    for kind in KINDS:
        found[kind.value] = {
            name: summary(
                differencing.one_target(kind, folder / f"diff-{kind.name}-{i}-{seed}", seed, **way)
                for seed in range(targets))
            for i, (name, way) in enumerate(ways.items())
        }
        found[kind.value]["every patient"] = summary(
            differencing.every_target(kind, folder / f"every-{kind.name}-{seed}", seed)
            for seed in range(databases))
    return found


def averages(folder: Path, times: int, databases: int) -> Found:
    """Averaging: one database asked very often, and many databases for the error of the mean."""
    long = averaging.averaged(Kind.DISCREET, folder / "avg-long", 1, times=times)
    found: Found = {"10 analysts, rewrites": {
        "answers": long.answers, "charges": long.charges, "distinct answers": long.distinct,
        "spent": long.spent,
    }}
    for kind in (Kind.UNBUDGETED, Kind.DISCREET):
        runs = [averaging.averaged(kind, folder / f"avg-{kind.name}-{seed}", seed, times=108)
                for seed in range(databases)]
        first = [run.first - run.truth for run in runs]
        mean = [run.mean - run.truth for run in runs]
        found[kind.value] = {
            "variance of one answer": round(float(np.var(first)), 3),
            "variance of the mean of 108": round(float(np.var(mean)), 3),
        }
    cloned = averaging.averaged(Kind.DISCREET, folder / "avg-clones", 2, times=400,
                                texts=averaging.clones())
    found["dummy conditions"] = {"charges": cloned.charges, "spent": cloned.spent,
                                 "distinct answers": cloned.distinct}
    return found


def memberships(folder: Path, databases: int, unbudgeted: int) -> Found:
    """Membership from means."""
    found: Found = {}
    for kind in KINDS:
        runs = [membership.inferred(kind, folder / f"member-{kind.name}-{seed}", seed)
                for seed in range(unbudgeted if kind is Kind.UNBUDGETED else databases)]
        found[kind.value] = {name: summary(run[name] for run in runs) for name in ("tpr", "auc")}
    return found


def searches(folder: Path, targets: int, generations: int) -> Found:
    """Question sets bred against each curator, then used once on each new target."""
    found: Found = {}
    for kind, scale in zip(KINDS, (0.0, 1.0, 1.0), strict=True):
        rng = np.random.default_rng(3)
        bred = query_search.breed(rng, kind, scale, 100, generations=generations, population=24)
        found[kind.value] = {
            "right": summary(
                query_search.guessed(kind, folder / f"search-{kind.name}-{i}", bred, i)
                for i in range(targets)),
            "different questions": query_search.different(bred.queries)[0],
        }
    return found


def blocks(folder: Path, databases: int) -> Found:
    """Census blocks from all three-way tables."""
    found: Found = {}
    for kind in KINDS:
        runs = [census.reconstructed(kind, folder / f"census-{kind.name}-{seed}", seed)
                for seed in range(databases)]
        found[kind.value] = {name: summary(run[name] for run in runs) for name in runs[0]}
    return found


def links(folder: Path, targets: int) -> Found:
    """Diagnoses of people with a name; nothing where the tables are not beside the project."""
    if not linkage.TABLES.is_dir():
        return {}
    return {kind.value: dict(linkage.linked(kind, folder / f"link-{kind.name}", 1, targets=targets))
            for kind in KINDS}


def targets(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Hold what was measured against what was promised."""
    with_budget, without = Kind.DISCREET.value, Kind.UNBUDGETED.value
    linear = found["linear reconstruction"]
    averaged = found["averaging"]
    ratio = (averaged[with_budget]["variance of the mean of 108"]
             / max(averaged[with_budget]["variance of one answer"], 1e-9))
    return [
        target("reconstruction, least squares", linear[with_budget]["least squares"]["mean"], 0.52),
        target("reconstruction, LP", linear[with_budget]["linear program"]["mean"], 0.52),
        target("reconstruction without a budget", linear[without]["least squares"]["mean"], 0.95,
               at_least=True),
        target("differencing every patient",
               found["differencing"][with_budget]["every patient"]["mean"], 0.55),
        target("membership, true positives at 1 %",
               found["membership"][with_budget]["tpr"]["mean"], 0.027),
        target("charges for 10,000 answers to 10 analysts",
               averaged["10 analysts, rewrites"]["charges"], 1),
        target("variance of a mean over that of one answer", ratio, 1.0, at_least=True),
        target("attribute inference", found["query search"][with_budget]["right"]["mean"],
               round(BIT_BOUND, 3)),
    ]


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """Run everything."""
    few = 4 if quick else 1
    sizes = {Kind.EXACT: 20 // few, Kind.UNBUDGETED: 20 // few, Kind.DISCREET: 60 // few}
    return {
        "linear reconstruction": reconstructions(folder, sizes),
        "differencing": differences(folder, 200 // few, 20 // few),
        "averaging": averages(folder, 10_000 // few, 60 // few),
        "membership": memberships(folder, 10 // few, max(1, 2 // few)),
        "query search": searches(folder, 200 // few, 30),
        "census": blocks(folder, 60 // few),
        "linkage": links(folder, 300),
        "curve": curve(folder, 8 // few),
    }


def table(document: Mapping[str, Any]) -> str:
    """Print what was found."""
    lines = []
    for attack, found in document["results"].items():
        lines.append(attack)
        for part in found if isinstance(found, list) else ():
            lines.append("    " + ", ".join(f"{name} {value:g}" for name, value in part.items()))
        for kind, numbers in (() if isinstance(found, list) else found.items()):
            words = ", ".join(
                f"{name} {value['mean']:.4g} +- {value['error']:.2g} ({value['runs']})"
                if isinstance(value, dict) else f"{name} {value:g}"
                for name, value in numbers.items())
            lines.append(f"    {kind:26}{words}")
    return "\n".join(lines)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--quick", action="store_true", help="a quarter of the databases")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="discreet-attacks-") as name:
        results = measure(Path(name), asked.quick)
    document = {"machine": machine("scipy"), "epsilon_total": 1.0, "delta_total": 1e-6,
                "results": results, "targets": targets(results)}
    give_out(document, asked, table(document))


if __name__ == "__main__":
    main()
