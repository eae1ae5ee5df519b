"""How much do attackers learn of single patients? Each attack on three curators.

    python -m benchmarks.attacks [--quick] [--only NAME]... [--into FILE] [--json]

Exact answers, noise without a budget (epsilon as stated for every answer, nobody adds up), and
Discreet under (1, 1e-6) in total, on the same code and rows. Everything is the share of right
guesses about one hidden bit of a patient unless stated; a coin has 50 %. Targets: linear
reconstruction of 256 patients from 1,024 counts at most 52 % over at least 50 databases, and at
least 95 % without a budget; membership from 5,000 means at most 2.7 % true positives at 1 % false
ones; differencing all patients at most 55 %; averaging 10,000 answers of ten analysts no better
than one answer, for one charge.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from benchmarks.attacks import (
    averaging,
    census,
    channels,
    differencing,
    floating,
    levels,
    linkage,
    membership,
    model_membership,
    query_search,
    timing,
)
from benchmarks.attacks.curators import Kind
from benchmarks.attacks.reconstruction import Attacked, Offer, Way, one_by_one, reconstruct
from benchmarks.common import give_out, machine, parser, target

KINDS = (Kind.EXACT, Kind.UNBUDGETED, Kind.DISCREET)
EPSILONS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
# Of right guesses at a total epsilon of 1: whether one row is there, and which of two it is.
BIT_BOUND = math.e / (1 + math.e)
SIGN_BOUND = math.e**2 / (1 + math.e**2)
Found = dict[str, dict[str, Any]]


def summary(numbers: Iterable[float]) -> dict[str, float]:
    """Return how many there are, their mean and its standard error."""
    found = [float(x) for x in numbers]
    spread = stdev(found) / math.sqrt(len(found)) if len(found) > 1 else 0.0
    return {"runs": len(found), "mean": round(fmean(found), 5), "error": round(spread, 5)}


def reconstructions(folder: Path, hospitals: int, wards: int, programs: int) -> Found:
    """Linear reconstruction of every ward of some hospitals, by all decoders and ways of asking.

    The slow decoder is turned on the first `programs` wards. What is expected in theory, from the
    noise and the subsets alone, stands beside what is found.
    """
    found: Found = {}
    for kind in KINDS:
        many = hospitals if kind is Kind.DISCREET else 1
        found[kind.value], offer = _reconstructed(folder, kind, Way.IN_TURN, many, wards,
                                                  programs)
        for signs in (False, True):
            name = "one sign for each patient" if signs else "one count for each patient"
            found[kind.value][name] = summary(one_by_one(kind, folder / f"{name}-{kind.name}", 77,
                                                         wards=wards, signs=signs))
    for way, many in ((Way.TOGETHER, hospitals), (Way.SIGNS, max(1, hospitals // 4))):
        more, offer = _reconstructed(folder, Kind.DISCREET, way, many, wards, 0,
                                     offer if way is Way.SIGNS else None)
        found[Kind.DISCREET.value] |= {f"{way.value}, {name}": n for name, n in more.items()}
    return found


def _reconstructed(
    folder: Path, kind: Kind, way: Way, hospitals: int, wards: int, programs: int,
    offer: Offer | None = None,
) -> tuple[dict[str, Any], Offer | None]:
    """Attack some hospitals in one way; return what was found, and the offer that they got."""
    runs: list[Attacked] = []
    for seed in range(hospitals):
        left = max(0, programs - seed * wards)
        runs.append(reconstruct(kind, folder / f"lin-{kind.name}-{way.name}-{seed}", seed,
                                wards=wards, way=way, offer=offer, linear=left))
        offer = runs[0].offer
    found: dict[str, Any] = {
        name: summary(share for run in runs for share in run.right.get(name, ()))
        for name in runs[0].right
    }
    found |= {f"{name}, in theory": round(fmean(run.theory[name] for run in runs), 5)
              for name in runs[0].theory}
    return {**found, "asked": runs[0].asked, "deviation": round(runs[0].offer.deviation, 3)}, offer


def curve(folder: Path, wards: int) -> list[dict[str, float]]:
    """Reconstruction accuracy by epsilon: of each answer without a budget, of all together with.

    By least squares, and by the best linear decoder, which wins where little is found.
    """
    points = []
    for i, epsilon in enumerate(EPSILONS):
        point: dict[str, float] = {"epsilon": epsilon}
        for kind in (Kind.UNBUDGETED, Kind.DISCREET):
            run = reconstruct(kind, folder / f"curve-{i}-{kind.name}", 500 + i, wards=wards,
                              epsilon=epsilon, each=epsilon)
            point[kind.value] = round(fmean(run.right["least squares"]), 4)
            point[f"{kind.value}, best linear"] = round(fmean(run.right["best linear"]), 4)
            point[f"{kind.value}, databases"] = wards
        points.append(point)
    return points


def differences(folder: Path, targets: Mapping[Kind, int], databases: Mapping[Kind, int]) -> Found:
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
                for seed in range(targets[kind]))
            for i, (name, way) in enumerate(ways.items())
        }
        found[kind.value]["every patient"] = summary(
            differencing.every_target(kind, folder / f"every-{kind.name}-{seed}", seed)
            for seed in range(databases[kind]))
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


def memberships(folder: Path, databases: Mapping[Kind, int]) -> Found:
    """Membership from means."""
    found: Found = {}
    for kind in KINDS:
        runs = [membership.inferred(kind, folder / f"member-{kind.name}-{seed}", seed)
                for seed in range(databases[kind])]
        found[kind.value] = {name: summary(run[name] for run in runs) for name in ("tpr", "auc")}
    return found


def searches(folder: Path, targets: Mapping[Kind, int], generations: int) -> Found:
    """Question sets bred against each curator, then used once on each new target."""
    found: Found = {}
    for kind, scale in zip(KINDS, (0.0, 1.0, 1.0), strict=True):
        rng = np.random.default_rng(3)
        bred = query_search.breed(rng, kind, scale, 100, generations=generations, population=24)
        found[kind.value] = {
            "right": summary(
                query_search.guessed(kind, folder / f"search-{kind.name}-{i}", bred, i)
                for i in range(targets[kind])),
            "different questions": query_search.different(bred.queries)[0],
        }
    return found


def blocks(folder: Path, databases: Mapping[Kind, int]) -> Found:
    """Census blocks from all three-way tables."""
    found: Found = {}
    for kind in KINDS:
        runs = [census.reconstructed(kind, folder / f"census-{kind.name}-{seed}", seed)
                for seed in range(databases[kind])]
        found[kind.value] = {name: summary(run[name] for run in runs) for name in runs[0]}
    return found


def links(folder: Path, targets: int) -> Found:
    """Diagnoses of people with a name; nothing where the tables are not beside the project."""
    if not linkage.TABLES.is_dir():
        return {}
    return {kind.value: dict(linkage.linked(kind, folder / f"link-{kind.name}", 1, targets=targets))
            for kind in KINDS}


def models(folder: Path, sizes: Mapping[Kind, int]) -> Found:
    """Membership from models: without a budget, ten of them at epsilon 10 are trained and averaged.

    True-positive rates are those of all models of a run together.
    """
    found: Found = {}
    for kind in KINDS:
        runs = [model_membership.inferred(kind, folder / f"model-{kind.name}-{seed}", seed,
                                          each=10.0, times=10)
                for seed in range(sizes[kind])]
        found[kind.value] = {
            f"{attack}, {name}": summary(run[attack][name] for run in runs)
            for attack in runs[0] for name in ("tpr", "auc")
        }
    return found


def accuracy_targets(folder: Path, learnt: int, tries: Mapping[Kind, int]) -> Found:
    """The level at which an accuracy target stopped, beside its number."""
    ratios = levels.learned(folder, learnt, 1.0)
    return {kind.value: {"right": summary(
        levels.guessed(kind, folder / f"level-{kind.name}", ratios, tries[kind]))}
        for kind in KINDS}


def processes(folder: Path, count: int) -> Found:
    """One question at once by other analysts in processes of their own."""
    found: Found = {}
    for kind in (Kind.UNBUDGETED, Kind.DISCREET):
        run = averaging.by_processes(kind, folder / f"processes-{kind.name}", 3, processes=count)
        found[kind.value] = {"answers": run.answers, "charges": run.charges,
                             "distinct answers": run.distinct, "spent": run.spent}
    return found


def side_channels(folder: Path) -> Found:
    """Channels that tell whether one patient is there, of all that are tried."""
    found: Found = {}
    for kind in KINDS:
        told = channels.told(kind, folder / f"channels-{kind.name}")
        found[kind.value] = {"tell": sum(told.values()), "of": len(told)}
    return found


def floats(folder: Path, draws: int) -> Found:
    """Answers that identify a count of 0 with certainty, by their last bits."""
    found: Found = {}
    with suppress(ImportError):
        found["floating-point Laplace"] = {
            "certain": floating.identified(lambda n: floating.float_noise(n, draws))}
    found[Kind.DISCREET.value] = {"certain": floating.identified(
        lambda n: floating.released(folder / f"float{n}", n, draws // 20))}
    return found


def times(folder: Path, questions: int, slot: float) -> Found:
    """A question that is slow for one patient's rows, with and without time slots."""
    return {
        "no slots": timing.timed(folder / "free", questions, None),
        f"slots of {slot:g} s": timing.timed(folder / "slots", questions, slot),
    }


def targets(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Hold what was measured against what was promised."""
    with_budget, without = Kind.DISCREET.value, Kind.UNBUDGETED.value
    likely, twice, rate = round(BIT_BOUND, 3), round(SIGN_BOUND, 3), 0.027

    def mean(attack: str, kind: str, name: str) -> Any:
        return found[attack][kind][name]["mean"]

    def surely(attack: str, name: str) -> float:
        """Return what is exceeded but once in a million: these bounds are nearly reached."""
        entry = found[attack][with_budget][name]
        return float(entry["mean"] - 4.9 * entry["error"])

    def worst() -> float:
        """Return what the best decoder of counts finds, whichever way they are asked."""
        entries = found["linear reconstruction"][with_budget].items()
        return max(entry["mean"] for name, entry in entries
                   if isinstance(entry, dict) and "sign" not in name and "each" not in name)

    asked: dict[str, list[tuple[str, Callable[[], float], float, bool]]] = {
        "linear reconstruction": [
            ("reconstruction, least squares",
             lambda: mean("linear reconstruction", with_budget, "least squares"), 0.52, False),
            ("reconstruction, LP",
             lambda: mean("linear reconstruction", with_budget, "linear program"), 0.52, False),
            ("reconstruction, the worst of counts of random subsets", worst, 0.52, False),
            ("one count for each patient, less what chance adds",
             lambda: surely("linear reconstruction", "one count for each patient"), likely, False),
            ("one sign for each patient, less what chance adds",
             lambda: surely("linear reconstruction", "one sign for each patient"), twice, False),
            ("reconstruction without a budget",
             lambda: mean("linear reconstruction", without, "least squares"), 0.95, True),
        ],
        "differencing": [("differencing every patient",
                          lambda: mean("differencing", with_budget, "every patient"), 0.55, False)],
        "averaging": [
            ("charges for 10,000 answers to 10 analysts",
             lambda: found["averaging"]["10 analysts, rewrites"]["charges"], 1, False),
            ("variance of a mean over that of one answer",
             lambda: found["averaging"][with_budget]["variance of the mean of 108"]
             / max(found["averaging"][with_budget]["variance of one answer"], 1e-9), 1.0, True),
        ],
        "processes": [("charges for one question in many processes",
                       lambda: found["processes"][with_budget]["charges"], 1, False)],
        "membership": [("membership, true positives at 1 %",
                        lambda: mean("membership", with_budget, "tpr"), rate, False)],
        "models": [(f"membership from models, {attack}",
                    lambda attack=attack: mean("models", with_budget, f"{attack}, tpr"), rate,
                    False) for attack in ("loss threshold", "shadow models")],
        "query search": [("attribute inference, less what chance adds",
                          lambda: surely("query search", "right"), likely, False)],
        "accuracy targets": [("one bit through an accuracy target, less what chance adds",
                              lambda: surely("accuracy targets", "right"), likely, False)],
        "side channels": [("channels that tell of a patient",
                           lambda: found["side channels"][with_budget]["tell"], 0, False)],
        "floating point": [("answers that their last bits identify",
                            lambda: found["floating point"][with_budget]["certain"], 0, False)],
    }
    told = []
    for lines in asked.values():
        for what, value, limit, least in lines:
            with suppress(KeyError):  # not measured
                told.append(target(what, value(), limit, at_least=least))
    return told


def attacks(folder: Path, quick: bool) -> dict[str, Callable[[], Any]]:
    """Name every attack, with how to run it."""
    few = 4 if quick else 1

    def sizes(exact: int, unbudgeted: int, discreet: int) -> dict[Kind, int]:
        return dict(zip(KINDS, (max(1, n // few) for n in (exact, unbudgeted, discreet)),
                        strict=True))

    return {
        "linear reconstruction": lambda: reconstructions(folder, max(1, 6 // few), 50, 50 // few),
        "differencing": lambda: differences(folder, sizes(10, 40, 100), sizes(2, 4, 20)),
        "averaging": lambda: averages(folder, 10_000 // few, 40 // few),
        "processes": lambda: processes(folder, 10 // few),
        "membership": lambda: memberships(folder, sizes(4, 1, 8)),
        "models": lambda: models(folder, sizes(1, 1, 4)),
        "query search": lambda: searches(folder, sizes(10, 100, 200), 20),
        "census": lambda: blocks(folder, sizes(4, 10, 20)),
        "linkage": lambda: links(folder, 300),
        "accuracy targets": lambda: accuracy_targets(folder, 4000 // few, sizes(20, 200, 200)),
        "side channels": lambda: side_channels(folder),
        "floating point": lambda: floats(folder, 100_000 // few),
        "timing": lambda: times(folder, 200 // few, 0.5),
        "curve": lambda: curve(folder, 50),
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
    options.add_argument("--only", action="append", metavar="NAME", help="one attack; may be given "
                         "several times")
    options.add_argument("--into", type=Path, metavar="FILE", help="put what is measured into this "
                         "file of results, beside what it has of other attacks")
    asked = options.parse_args()
    old = {} if asked.into is None or not asked.into.exists() else json.loads(
        asked.into.read_text())["results"]
    with tempfile.TemporaryDirectory(prefix="discreet-attacks-") as name:
        known = attacks(Path(name), asked.quick)
        unknown = set(asked.only or ()) - known.keys()
        if unknown:
            options.error(f"no attack is called {sorted(unknown)}; these are: {', '.join(known)}")
        results = old
        for attack, run in known.items():
            if asked.only is None or attack in asked.only:
                results = {**results, attack: run()}
                document = _document({name: results[name] for name in known if name in results})
                if asked.into is not None:  # what took an hour is not lost with what fails next
                    asked.into.write_text(json.dumps(document, indent=2) + "\n")
    give_out(document, asked, table(document))


def _document(results: Found) -> dict[str, Any]:
    return {"machine": machine("scipy"), "epsilon_total": 1.0, "delta_total": 1e-6,
            "results": results, "targets": targets(results)}


if __name__ == "__main__":
    main()
