"""Partition selection: a delta and a noise scale in, the count from which a key is shown out.

For each key the distinct units are counted and noised. A key is shown when the noisy count
reaches the threshold; a key that no unit has is never shown, nor is noise drawn for it.
"""

from __future__ import annotations

from fractions import Fraction

from mechanisms import gaussian, laplace


def delta_per_key(delta: Fraction, groups: int) -> Fraction:
    """Return the delta of one key when a unit has at most `groups` keys.

    Guarantee: with d1 = delta/groups the chance that any of a unit's own keys is shown is
    1 - (1 - d1)**groups <= groups * d1 = delta. The exact root would be larger by less than one
    part in 1/delta; the union bound also holds when the noises of the keys are dependent.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie strictly between 0 and 1, got {delta!r}")
    if not (type(groups) is int and groups >= 1):
        raise ValueError(f"groups per unit must be an integer >= 1, got {groups!r}")
    return Fraction(delta) / groups


def laplace_threshold(scale: float, delta_key: Fraction) -> int:
    """Return the smallest tau with P(1 + Z >= tau) <= delta_key, Z discrete Laplace.

    Guarantee: rounded up where unsure. A key held by one unit alone is shown with probability
    at most delta_key; a key held by others as well is covered by the noise on its count
    (Korolova et al. 2009; Wilson et al. 2020).
    """
    return 1 + laplace.tail_steps(scale, _check_delta_key(delta_key))


def gaussian_threshold(sigma: float, delta_key: Fraction) -> int:
    """Return the smallest tau with P(1 + Z >= tau) <= delta_key, Z discrete Gaussian.

    Guarantee: as for `laplace_threshold`.
    """
    return 1 + gaussian.tail_steps(sigma, _check_delta_key(delta_key))


def _check_delta_key(delta_key: Fraction) -> Fraction:
    if not gaussian.TAIL_MIN <= delta_key < Fraction(1, 2):
        raise ValueError(
            f"delta of a key must lie between 2**-160 and 1/2, got {delta_key!r}; "
            "fewer groups per unit or a larger delta raise it"
        )
    return Fraction(delta_key)
