"""How much longer does a private step take? Against Keras without privacy, on the same batch.

    python -m benchmarks.training_speed [--steps 20] [--repetitions 5] [--json]

CPU time, in turns, of steps over the same rows: a dense network of two layers of 64 on batches of
1,024, and a small convolutional one on batches of 256. The private step is all that a run does
between two batches: sampling, clipped sums, exact noise, Adam. Keras is `train_on_batch` with
Adam, compiled. Beside it: how much memory a million rows take on their way out of DuckDB.
"""

from __future__ import annotations

import resource
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from benchmarks.common import give_out, in_turns, machine, median, parser, target
from mechanisms.randomness import Randomness
from models.descent import State, descend
from models.encoding import Encoding
from models.layers import Architecture, Convolution, Dense, Flatten, Pool
from models.run import Defaults, RunPlan, Settings, plan_run
from models.table import Table, gather
from models.tensors import TensorNetwork, tensorflow
from planner.training_view import Coding, Feature

LABEL = Feature("ill", Coding.TRUTH, False)
WIDTH = 30
MLP = Architecture((WIDTH,), (Dense(64, "relu"), Dense(64, "relu"), Dense(1)))
CNN = Architecture((28, 28, 1), (Convolution(16, 5, 2, "relu"), Convolution(32, 3, 2, "relu"),
                                 Pool(2), Flatten(), Dense(1)))
LIMITS = {"mlp, batch 1,024": 1.6, "cnn, batch 256": 3.0}


def keras_of(architecture: Architecture) -> Any:
    """Return the same network in Keras, compiled."""
    keras = tensorflow().keras
    layers: list[Any] = [keras.Input(architecture.inputs)]
    for layer in architecture.layers:
        if isinstance(layer, Dense):
            layers.append(keras.layers.Dense(layer.units, layer.activation))
        elif isinstance(layer, Convolution):
            layers.append(keras.layers.Conv2D(layer.filters, layer.size, layer.stride, "same",
                                              activation=layer.activation))
        elif isinstance(layer, Pool):
            layers.append(keras.layers.AveragePooling2D(layer.size))
        else:
            layers.append(keras.layers.Flatten())
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.legacy.Adam(0.001),
                  keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def plan_for(network: TensorNetwork, batch: int, units: int, steps: int) -> RunPlan:
    """Return a run of `steps` on batches of about `batch` patients."""
    defaults = Defaults(steps=1.0, learning_rate=0.001, decay=0.0, clip=1.0)
    return plan_run("keras", network.encoding, Settings(steps=steps, batch=batch, holdout=0.0),
                    defaults, network.size, units, Fraction(3), Fraction(1, 10**5), Fraction(9))


def compared(name: str, architecture: Architecture, batch: int, steps: int, repetitions: int
             ) -> dict[str, Any]:
    """Return CPU milliseconds of a step with and without privacy."""
    units = 16 * batch
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 2, units).astype(np.float32)
    image = len(architecture.inputs) == 3
    pixels = rng.integers(0, 256, (units, *architecture.inputs)).astype(np.uint8) if image else None
    inputs = rng.uniform(-1, 1, (units, 0 if image else WIDTH)).astype(np.float32)
    features = () if image else tuple(
        Feature(f"x{i}", Coding.NUMBER, False, -1.0, 1.0) for i in range(WIDTH))
    network = TensorNetwork(Encoding(features, LABEL), architecture)
    table = Table(inputs, pixels, targets, np.arange(units + 1))
    run = plan_for(network, batch, units, steps)
    model = keras_of(architecture)
    given = inputs if pixels is None else pixels.astype(np.float32) / 127.5 - 1
    state = State.start(network.initial(Randomness.seeded(0)))

    def private() -> None:
        descend(network, table, run, bytes(32), replace(state))

    def plain() -> None:
        for step in range(steps):
            places = slice(step % 16 * batch, (step % 16 + 1) * batch)
            model.train_on_batch(given[places], targets[places])

    ours, theirs = (median(times) / steps for times in in_turns((private, plain), repetitions))
    return {"network": name, "parameters": network.size, "private_ms": round(ours, 3),
            "plain_ms": round(theirs, 3), "ratio": round(ours / theirs, 3)}


def streamed(rows: int) -> dict[str, Any]:
    """Return how much memory `rows` rows take on their way into a table, over the table's own."""
    from engine.database import open_memory, stream

    encoding = Encoding(tuple(Feature(f"c{i}", Coding.NUMBER, False, 0.0, 1.0)
                              for i in range(10)), LABEL)
    listed = ", ".join(f"(hash(i + {k}) % 1000) / 1000.0 AS c{k}" for k in range(10))
    connection = open_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    statement = f"SELECT i AS u, {listed}, (i % 2)::DOUBLE AS y FROM range({rows}) AS t(i)"
    table = gather(stream(connection, statement, 65_536), encoding, 1)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    connection.close()
    held = (table.inputs.nbytes + table.targets.nbytes + table.starts.nbytes) / 2**20
    return {"rows": rows, "table_mb": round(held, 1), "peak_mb": round(grown, 1)}


def main() -> None:
    """Measure, and print a table or JSON."""
    made = parser(__doc__)
    made.add_argument("--steps", type=int, default=20)
    made.add_argument("--repetitions", type=int, default=5)
    asked = made.parse_args()
    memory = streamed(1_000_000)
    rows = [compared("mlp, batch 1,024", MLP, 1024, asked.steps, asked.repetitions),
            compared("cnn, batch 256", CNN, 256, max(2, asked.steps // 4), asked.repetitions)]
    document = {
        "benchmark": "training speed", "machine": machine("tensorflow", "tf-keras"), "rows": rows,
        "memory": memory,
        "targets": [target(f"private step over plain Keras, {r['network']}", r["ratio"],
                           LIMITS[r["network"]]) for r in rows],
    }
    lines = [f"{r['network']:18} {r['private_ms']:8.2f} ms private {r['plain_ms']:8.2f} ms plain "
             f"{r['ratio']:6.2f} times" for r in rows]
    lines.append(f"{memory['rows']:,} rows: a table of {memory['table_mb']:.0f} MB, peak "
                 f"{memory['peak_mb']:.0f} MB")
    give_out(document, asked, "\n".join(lines))


if __name__ == "__main__":
    main()
