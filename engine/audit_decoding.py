"""Noisy counts over known subsets of patients in, a guess of each patient's bit out.

This is the attacker's half of a reconstruction: attack tests and benchmarks turn it on synthetic
tables. It knows no policy, no engine and no real data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    Matrix = npt.NDArray[Any]

LP_SECONDS_MAX = 60.0


def least_squares(subsets: Matrix, answers: Matrix) -> Matrix:
    """Return guessed bits by least squares, rounded (Dinur and Nissim 2003; Dwork, McSherry and
    Talwar 2007).

    `subsets` is (questions, patients) of 0 and 1; `answers` has one noisy count a question, or
    (questions, tables) of them where several tables are asked the same. With fewer questions
    than patients the shortest solution is taken.
    """
    return guessed(least_squares_weights(subsets), subsets, answers)


def correlation(subsets: Matrix, answers: Matrix) -> Matrix:
    """Return guessed bits by how answers go along with each patient's being asked about.

    Better than least squares where noise is far larger than what patients add: telling them
    apart costs, and is worth nothing then.
    """
    return guessed(correlation_weights(subsets), subsets, answers)


def best_linear(subsets: Matrix, answers: Matrix, deviation: float) -> Matrix:
    """Return guessed bits by the sign of their posterior means, the best linear decoder.

    It knows the deviation of the noise, which is public, and that bits are coins: between
    least squares (no noise) and correlation (very much), and besides it sees whether more
    patients than half are sick, and leans that way with everybody.
    """
    return guessed(best_linear_weights(subsets, deviation), subsets, answers)


def guessed(weights: Matrix, subsets: Matrix, answers: Matrix) -> Matrix:
    """Return the bits whose weighted answers lie above what coins would have given.

    `weights` is (patients, questions). A coin is worth one half in every answer that asks for it.
    """
    import numpy as np

    centred = (answers.T - subsets.sum(axis=1) / 2).T
    return np.asarray(weights @ centred > 0, dtype=int)


def least_squares_weights(subsets: Matrix) -> Matrix:
    """Return what least squares makes of each answer for each patient."""
    import numpy as np

    return np.asarray(np.linalg.pinv(subsets.astype(float)))


def correlation_weights(subsets: Matrix) -> Matrix:
    """Return what correlation makes of each answer for each patient."""
    import numpy as np

    return np.asarray((subsets - subsets.mean()).T)


def best_linear_weights(subsets: Matrix, deviation: float) -> Matrix:
    """Return what the posterior mean makes of each answer for each patient: a ridge towards one
    half, as strong as noise of this deviation is beside a coin's one half."""
    import numpy as np

    if not deviation > 0:
        return least_squares_weights(subsets)
    asked = subsets.astype(float)
    ridge = (2 * deviation) ** 2 * np.eye(asked.shape[1])
    return np.asarray(np.linalg.solve(asked.T @ asked + ridge, asked.T))


def expected(weights: Matrix, subsets: Matrix, deviation: float) -> float:
    """Return the share of bits that a linear decoder finds in expectation, the noise being normal.

    A patient's weighted answers are half of `own` to either side, with the noise and the other
    patients' coins about it; their sum is taken for normal as well.
    """
    import numpy as np
    from scipy.stats import norm

    reach = weights @ subsets
    own = np.diag(reach)
    others = (reach**2).sum(axis=1) - own**2
    spread = np.sqrt(deviation**2 * (weights**2).sum(axis=1) + others / 4)
    return float(norm.cdf(own / 2 / np.maximum(spread, 1e-12)).mean())


def linear_program(subsets: Matrix, answers: Matrix) -> Matrix:
    """Return guessed bits that minimise the sum of absolute errors (Dwork, McSherry and Talwar
    2007), by scipy's HiGHS, rounded.

    Exact answers with a few gross lies among them are seen through, which least squares is not.
    """
    import numpy as np
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix, eye, hstack, vstack

    questions, patients = subsets.shape
    matrix, one = csr_matrix(subsets.astype(float)), eye(questions, format="csr")
    above = hstack([matrix, -one])
    below = hstack([-matrix, -one])
    cost = np.concatenate([np.zeros(patients), np.ones(questions)])
    solved = linprog(
        cost, A_ub=vstack([above, below]), b_ub=np.concatenate([answers, -answers]),
        bounds=[(0, 1)] * patients + [(0, None)] * questions, method="highs",
        options={"time_limit": LP_SECONDS_MAX},
    )
    if solved.x is None:
        return least_squares(subsets, answers)
    return np.asarray(solved.x[:patients] > 0.5, dtype=int)
