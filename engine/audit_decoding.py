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

    `subsets` is (questions, patients) of 0 and 1; `answers` has one noisy count a question.
    With fewer questions than patients the shortest solution is taken.
    """
    import numpy as np

    # A ridge towards one half: without answers a patient's bit is a coin.
    centred = answers - subsets.sum(axis=1) / 2
    found, *_ = np.linalg.lstsq(subsets.astype(float), centred, rcond=None)
    return np.asarray(found > 0, dtype=int)


def correlation(subsets: Matrix, answers: Matrix) -> Matrix:
    """Return guessed bits by how answers go along with each patient's being asked about.

    Best where noise is far larger than what patients add: least squares pays for telling them
    apart, which is worth nothing then.
    """
    import numpy as np

    centred = answers - subsets.sum(axis=1) / 2
    return np.asarray((subsets - 0.5).T @ centred > 0, dtype=int)


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
