"""The results of `benchmarks.attacks` in, the picture of the README out.

    python -m benchmarks.attacks.picture benchmarks/results/attacks.json docs/reconstruction.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

WITHOUT, WITH = "noise without a budget", "Discreet with its budget"


def draw(points: list[dict[str, float]], path: Path) -> None:
    """Draw the best linear decoder's accuracy by epsilon, with and without a budget."""
    import matplotlib
    from matplotlib.figure import Figure

    look: dict[str, Any] = {"svg.hashsalt": "discreet", "svg.fonttype": "none", "font.size": 11}
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(8.0, 4.2), layout="constrained")
        axes = figure.subplots()
        epsilons = [point["epsilon"] for point in points]
        for name, label, colour in (
            (WITHOUT, "noise on every answer, no budget: epsilon of one answer", "#b0545a"),
            (WITH, "Discreet: epsilon of all answers together, for ever", "#4a78b0"),
        ):
            found = f"{name}, best linear"
            measured = [point for point in points if found in point]
            axes.plot([point["epsilon"] for point in measured],
                      [100 * point[found] for point in measured], "o-", label=label, color=colour)
        axes.axhline(50, color="#777777", linewidth=0.8, linestyle="--")
        axes.text(epsilons[-1], 50.7, "a coin", color="#777777", ha="right", va="bottom")
        axes.set_xscale("log")
        axes.set_xticks(epsilons, [f"{e:g}" for e in epsilons])
        axes.minorticks_off()
        axes.set_ylim(36, 102)
        axes.set_xlabel("epsilon")
        axes.set_ylabel("patients' bits guessed right, %")
        axes.set_title("256 patients, 1,024 counts, best linear decoder", loc="left", fontsize=11)
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, -0.01))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    source, goal = (Path(argument) for argument in sys.argv[1:3])
    draw(json.loads(source.read_text())["results"]["curve"], goal)


if __name__ == "__main__":
    main()
