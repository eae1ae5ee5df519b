"""Models trained under the same policy and the same ledger; nothing here opens a file of rows.

Map of the folder, in the order of the road
    encoding    columns of a training view to bounded numbers, by declared facts alone
    family      names ("logistic", "mlp", ...) to networks and their defaults
    run         settings to a priced run: sampling, steps and noise, fixed before a row is read
    table       streamed rows to compact arrays by patient. Private
    clipping    norms to weights: what bounds a patient's part of a sum
    linear      linear, logistic and softmax regression
    statistics  models of one noisy vector of sums: least squares, and bayes
    forest      random trees whose leaves are noisy counts
    layers      what a network is made of
    embedding   tables of learned vectors, and a patient's part of them
    tensors     networks: one forward and one backward pass. The door to TensorFlow
    descent     the one loop: sample patients, sum clipped gradients, add noise, step
    evaluation  held-out patients to noisy counts, and metrics read off them
    tuning      candidate runs to a priced search among them, and the score it chooses by
    noised_table    rows noised one by one and shuffled
    marginal_table  rows drawn from noisy counts
    model       what an analyst holds: predict, metrics, card, save, load; picture draws it
    arithmetic  a small model to plain numbers that SQL can compute

The interface between them
    A family is a `descent.Network`: `size`, `initial(randomness)`, `scores(parameters, inputs,
    pixels)` and `clipped_sum(parameters, table, units, clip)`. Parameters are one float64 vector.
    `clipped_sum` carries the guarantee that one patient moves it by at most 1 in L2 norm; noise,
    sampling, accounting, checkpoints and metrics know nothing else of a family. To add one: write
    these four, and a line in `family.family_of`.

    Everything that a run may depend on is in `run.RunPlan`, made before the charge; its event
    (mechanisms.event.SampledGaussianEvent) is what the ledger keeps. A release besides the steps
    (importance, class weights) is one more phase of that event: (1.0, multiplier, 1).

    Randomness of a run comes from one key (mechanisms.randomness.Randomness.keyed), at a place
    of its own for each use: 0 starts the parameters, 2t + 1 and 2t + 2 are step t's sample and
    noise, 2^40 splits the patients, 2^40 + 1 noises the metrics (engine/training.py).
"""
