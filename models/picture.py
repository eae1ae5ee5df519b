"""A released model in; its weights or importance, and what held-out patients said of it, drawn.

Everything drawn was released before: parameters, importance and noisy counts. Drawing is free.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from models.encoding import Task
from models.evaluation import BINS, CENTRES, ERROR_EDGES
from planner.refusal import Refused

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from models.evaluation import Evaluation
    from models.model import Model

BARS_MAX = 25
GROUPS = 8  # of predicted probabilities, in the picture of calibration
BLUE, ORANGE, GREY = "#4a78b0", "#d98b3a", "#777777"


def draw(model: Model) -> Figure:
    """Draw what is known of a model: one panel for each. Raises Refused where nothing is."""
    from importlib.util import find_spec

    weights = model.importance or model.coefficients
    panels = [name for name, there in (("weights", weights), ("metrics", model.metrics)) if there]
    if find_spec("matplotlib") is None:
        raise Refused("model", "drawing needs matplotlib, which is missing",
                      "pip install discreet[demo]")
    if not panels:
        raise Refused("model", f"a {model.family} model without metrics has nothing to draw",
                      "holdout=0.2, or importance=0.1")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(panels), 4.8), layout="constrained")
    for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if panel == "weights":
            _weights(axes, weights, "importance" if model.importance else "coefficient")
        elif model.metrics is not None:
            _metrics(axes, model, model.metrics)
    figure.supxlabel(f"{model.family} model, {model.card['privacy']}", fontsize=8, color=GREY)
    if not model.is_private:
        figure.suptitle("NOT PRIVATE: insecure testing", color="#bb0000", fontweight="bold")
    return figure


def _weights(axes: Axes, weights: dict[str, float], kind: str) -> None:
    largest = sorted(weights, key=lambda name: -abs(weights[name]))[:BARS_MAX]
    colours = [BLUE if weights[name] >= 0 else ORANGE for name in largest]
    axes.barh(range(len(largest)), [weights[name] for name in largest], color=colours)
    axes.set_yticks(range(len(largest)), [_label(name) for name in largest])
    axes.invert_yaxis()
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.set_title(f"{kind} of each input", loc="left")


def _metrics(axes: Axes, model: Model, metrics: Evaluation) -> None:
    counts = np.array(metrics.counts, dtype=np.float64)
    if metrics.task is Task.BINARY:
        _calibration(axes, counts, metrics.deviation)
    elif metrics.task is Task.CLASSES:
        names = [_label(str(name)) for name in model.classes]
        axes.imshow(np.maximum(counts, 0), cmap="Blues")
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("held-out patients")
    else:
        edges = ERROR_EDGES[metrics.task] * model.encoding.unit
        axes.bar(edges[:-1], counts[0], np.diff(edges), align="edge", color=BLUE,
                 yerr=1.96 * metrics.deviation, ecolor=GREY)
        axes.set_xlabel(f"error of {_label(model.encoding.label.name)}")
        axes.set_ylabel("held-out patients (noisy)")
    axes.set_title(_label("; ".join(str(m) for m in metrics.metrics[:2]), 60), loc="left",
                   fontsize=9)


def _calibration(axes: Axes, counts: Any, deviation: float) -> None:
    """Draw observed against predicted shares, over groups of the noisy cells."""
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    for cells in np.array_split(np.arange(BINS), GROUPS):
        total, positive = counts[:, cells].sum(), counts[1, cells].sum()
        noise = deviation * math.sqrt(2 * len(cells))
        if total < max(1.0, 2 * noise):
            continue  # hardly anybody is there, as far as the noise lets see
        kept = np.maximum(counts[:, cells].sum(axis=0), 0)
        predicted = float((CENTRES[cells] * kept).sum() / max(kept.sum(), 1.0))
        share = min(max(positive / total, 0.0), 1.0)
        spread = 1.96 * math.sqrt((share * (1 - share) + deviation**2 * len(cells) / total) / total)
        axes.errorbar([predicted], [share], yerr=[[min(spread, share)], [min(spread, 1 - share)]],
                      fmt="o", color=BLUE, ecolor=GREY, capsize=2)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("share of held-out patients (noisy)")


def _label(text: str, longest: int = 32) -> str:
    """Return a text as a label: cut, and without a meaning for matplotlib's mathematics."""
    text = "".join(c for c in text if c.isprintable())
    text = text if len(text) <= longest else text[: longest - 3] + "..."
    return text.replace("$", r"\$")
