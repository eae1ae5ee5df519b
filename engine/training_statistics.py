"""A paid vector of sums or counts in, a model out: add up, add noise, fit, count the held-out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.execution import RowReader
from mechanisms.randomness import Randomness
from planner.sufficient import coin, products_statement
from planner.training_view import TrainingView

if TYPE_CHECKING:
    from models.bayes import Vector
    from models.evaluation import Evaluation
    from models.forest import ForestPlan
    from models.statistics import StatisticsPlan

# Places of a run's randomness beside those of descent.
NOISE, METRICS, SPLITS = 2**41, 2**41 + 1, 2**41 + 2


def fit_statistics(
    view: TrainingView, run: StatisticsPlan, reader: RowReader, key: bytes
) -> tuple[Vector, Evaluation | None]:
    """Return the parameters and the metrics of a model that one noisy vector gives.

    `reader` is that of the paid run; `key` is the run's secret, from which all randomness comes.

    Guarantee: what leaves is the noisy vector of sums over patients whose coin says training
    (models/statistics.released) and the noisy counts of the others (models/evaluation.evaluate):
    the two branches of run.event. The fit and the metrics are post-processing.
    """
    import numpy as np

    from models.evaluation import evaluate
    from models.statistics import fitted, released
    from models.table import gather

    share = run.settings.holdout
    training = coin(key, share, held=False) if share > 0 else "TRUE"
    reader = reader.saying(products_statement(view, run.products, training))
    (columns,) = list(reader.chunks())
    sums = np.array([column[0] for column in columns], dtype=np.int64)
    parameters = fitted(run, released(run, sums, Randomness.keyed(key, NOISE)))
    if run.held_multiplier is None:
        return parameters, None
    held = f"SELECT * FROM ({view.statement}) AS v WHERE {coin(key, share, held=True)} ORDER BY u"
    table = gather(reader.saying(held).chunks(), run.encoding, 1)
    metrics = evaluate(run.network, parameters, table, np.arange(table.units),
                       run.held_multiplier, Randomness.keyed(key, METRICS))
    return parameters, metrics


def fit_forest(
    run: ForestPlan, reader: RowReader, key: bytes
) -> tuple[Vector, Evaluation | None]:
    """Return the parameters and the metrics of a forest.

    Guarantee: what leaves is splits that depend on coins and public bounds, the noisy counts of the
    leaves (models/forest.grown), and the noisy counts of held-out patients: the branches of
    run.event.
    """
    from models.evaluation import evaluate
    from models.forest import grown
    from models.table import chosen, gather, split_units

    table = gather(reader.chunks(), run.encoding, run.rows)
    training, held = split_units(table.units, run.settings.holdout, Randomness.keyed(key, SPLITS))
    splits = run.network.drawn(Randomness.keyed(key, SPLITS + 1))
    learned = chosen(table, training) if len(held) else table
    parameters = grown(run, splits, learned, Randomness.keyed(key, NOISE))
    if run.held_multiplier is None:
        return parameters, None
    metrics = evaluate(run.network, parameters, table, held, run.held_multiplier,
                       Randomness.keyed(key, METRICS))
    return parameters, metrics
