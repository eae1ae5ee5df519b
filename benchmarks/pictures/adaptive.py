"""The results of `benchmarks.adaptive` in, the picture of docs/adaptive.md out.

    python -m benchmarks.pictures.adaptive benchmarks/results/adaptive.json docs/adaptive.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CONSTANT, ADAPTIVE, OTHER = "#b0545a", "#4a78b0", "#777777"
# What else was measured for a row, and its mark.
BESIDE = {"AboveThreshold, simulated": "|", "leaky, not private": "x"}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw each row's error with constant and with adaptive noise, on a logarithmic scale."""
    import matplotlib
    from matplotlib.figure import Figure

    look: dict[str, Any] = {"svg.hashsalt": "discreet", "svg.fonttype": "none", "font.size": 10}
    errors = [row for row in rows if row["what"] == "relative RMSE"]
    spent = [row for row in rows if row["what"] == "epsilon spent"]
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(8.6, 1.5 + 0.42 * len(errors + spent)), layout="constrained")
        above, below = figure.subplots(
            2, 1, height_ratios=[len(errors) + 1, max(len(spent), 1) + 0.6]
        )
        panel(above, errors, "root mean square of the relative error")
        panel(below, spent, "epsilon spent")
        above.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.3, 1.0), ncols=4,
                     fontsize=9, handletextpad=0.3, columnspacing=1.0)
        figure.savefig(path, format="svg", metadata={"Date": None})


def panel(axes: Any, rows: list[dict[str, Any]], label: str) -> None:
    """Draw one line for each row, from the constant to the adaptive form."""
    for place, row in enumerate(rows):
        axes.plot([row["constant"], row["adaptive"]], [place, place], color="#cccccc", zorder=1)
    for form, colour in (("constant", CONSTANT), ("adaptive", ADAPTIVE)):
        axes.scatter([row[form] for row in rows], range(len(rows)), color=colour, zorder=2,
                     label=f"{form} noise")
    for name, mark in BESIDE.items():
        found = [(row[name], place) for place, row in enumerate(rows) if name in row]
        if found:
            axes.scatter(*zip(*found, strict=True), color=OTHER, marker=mark, s=40, zorder=3,
                         label=name)
    axes.set_yticks(range(len(rows)), [row["case"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlabel(label)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)


def main() -> None:
    source, goal = (Path(argument) for argument in sys.argv[1:3])
    draw(json.loads(source.read_text())["results"], goal)


if __name__ == "__main__":
    main()
