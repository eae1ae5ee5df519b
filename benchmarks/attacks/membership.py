"""Membership from thousands of means: was this person among the patients?

Homer et al. 2008; Dwork, Smith, Steinke, Ullman and Vadhan 2015: the score of a person z against
released means q and the population's means p is the inner product of z - p and q - p.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attacks.curators import Curator, Kind, curator

PATIENTS, MARKERS = 1_000, 5_000
FALSE_POSITIVES = 0.01
SQL = "SELECT marker, COUNT(DISTINCT id) AS n FROM genes GROUP BY marker"


def declared(markers: int) -> str:
    """Declare patients, and which of many markers each has."""
    return (
        "  people:\n    one_row_per_unit: true\n    columns: {id: unit}\n"
        "  genes:\n    columns:\n      id: {references: people}\n"
        f"      marker: {{integer: [0, {markers - 1}], not_null: true}}\n"
    )


def draw(rng: np.random.Generator, patients: int, markers: int) -> tuple[Any, Any, Any]:
    """Return the population's frequencies, the patients' markers and those of strangers."""
    frequencies = rng.uniform(0.05, 0.5, markers)
    members = rng.random((patients, markers)) < frequencies
    strangers = rng.random((10 * patients, markers)) < frequencies
    return frequencies, members, strangers


def _means(asked: Curator, patients: int, markers: int, epsilon: float) -> Any:
    """Ask for all means, in one question where a budget is at stake: that is the cheapest."""
    if asked.kind is Kind.UNBUDGETED:  # one question for each mean, as people ask
        numbers = [asked.ask(f"SELECT COUNT(DISTINCT id) FROM genes WHERE marker = {m}")
                   for m in range(markers)]
        return np.array([float(rows[0][0]) for rows in numbers if rows]) / patients
    # Gaussian noise for almost all of what rail A allows at once.
    left = asked.engine.budget().left if asked.kind is Kind.DISCREET else None
    rows = asked.ask(SQL, epsilon, None if left is None else float(left.delta) * 0.99)
    found = np.zeros(markers)
    for marker, n in rows or ():
        found[int(marker)] = float(n) / patients
    return found


def inferred(
    kind: Kind, folder: Path, seed: int, *, patients: int = PATIENTS, markers: int = MARKERS,
    epsilon: float = 1.0, each: float = 0.1,
) -> dict[str, float]:
    """Return the true-positive rate at 1 % false positives, and the area under the curve."""
    rng = np.random.default_rng(seed)
    frequencies, members, strangers = draw(rng, patients, markers)
    who, marker = np.nonzero(members)
    columns = {"id": who + 1, "marker": marker}

    def write_people(path: Path) -> None:
        import duckdb

        with duckdb.connect(str(path)) as connection:
            connection.execute(f"CREATE TABLE people AS SELECT range + 1 AS id FROM "
                               f"range({patients})")

    with curator(kind, folder, columns, declared(markers), epsilon=epsilon, each=each,
                 table="genes", rows=markers, also=write_people) as asked:
        means = _means(asked, patients, markers, epsilon)
    weights = means - frequencies
    inside = (members - frequencies) @ weights
    outside = (strangers - frequencies) @ weights
    threshold = np.quantile(outside, 1 - FALSE_POSITIVES)
    order = np.searchsorted(np.sort(outside), inside)
    return {"tpr": float(np.mean(inside > threshold)), "auc": float(order.mean() / len(outside))}
