"""Training under the same policy and the same ledger: nothing is here yet.

It will hold `engine.train()`: rows of patients sampled, gradients clipped for each patient and
noised, and a run paid for before it reads a row. Until then nothing in this package can be used.
"""
