"""Images in, bounded numbers for each out: fixed filters of edges, learned from nothing.

At a small epsilon a linear model of hand-made features beats a network that must learn its own
(Tramer and Boneh 2021). These are an image at half its resolution, and the strength of its edges
in eight directions at two scales: the first layer of a scattering transform (Bruna and Mallat
2013), with Morlet filters of its usual constants. Which features was decided on digits, not on
patients (benchmarks/training.py).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import fft

Floats = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]

SCALES: Final = 2
DIRECTIONS: Final = 8
STRIDE: Final = 2**SCALES
SIDE_MAX: Final = 32  # larger images are averaged down first: the number of features is bounded
# Mean and deviation of each scale's edges in images whose power falls as 1/f, as natural ones do.
MEANS: Final = (0.142, 0.138)
DEVIATIONS: Final = (0.0235, 0.0345)
SMOOTH_DEVIATION: Final = 0.433
NORM: Final = 4.0  # of each image's two halves, before clamping
ROWS_AT_ONCE: Final = 512


def width(shape: tuple[int, ...]) -> int:
    """Return how many features an image of that shape has."""
    height, across = _reduced(shape)
    maps = 1 + SCALES * DIRECTIONS
    return (height // 2) * (across // 2) + maps * math.prod(
        _padded(side) // STRIDE for side in (height, across)
    )


def features(images: Images) -> Floats:
    """Return the features of images [rows, height, width, channels]: [rows, width(shape)].

    Guarantee: an image's features depend on that image alone; they are finite, lie in [-1, 1],
    and have a norm of at most NORM sqrt(2).
    """
    shape = images.shape[1:]
    found = np.zeros((len(images), width(shape)), dtype=np.float32)
    for first in range(0, len(images), ROWS_AT_ONCE):
        part = _centred(images[first : first + ROWS_AT_ONCE])
        halves = (_halved(part), _edges(part))
        found[first : first + ROWS_AT_ONCE] = np.concatenate([_unit(h) for h in halves], axis=1)
    return np.clip(NORM * found, -1.0, 1.0, out=found)


def _reduced(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return height and width after averaging down to at most SIDE_MAX."""
    factor = -(-max(shape[0], shape[1]) // SIDE_MAX)
    return max(2, shape[0] // factor), max(2, shape[1] // factor)


def _padded(side: int) -> int:
    """Return the side of the plane that filters run over: a multiple of STRIDE, with a border."""
    return -(-(side + STRIDE) // STRIDE) * STRIDE


def _centred(images: Images) -> Floats:
    """Return grey images of at most SIDE_MAX, each minus its mean and over its deviation."""
    grey = images.astype(np.float32).mean(axis=3) / np.float32(127.5) - np.float32(1)
    high, across = _reduced(images.shape[1:])
    factor = max(1, -(-max(images.shape[1:3]) // SIDE_MAX))
    if factor > 1:
        grey = grey[:, : high * factor, : across * factor]
        grey = np.pad(grey, ((0, 0), (0, high * factor - grey.shape[1]),
                             (0, across * factor - grey.shape[2])))
        grey = grey.reshape(-1, high, factor, across, factor).mean(axis=(2, 4))
    elif grey.shape[1:] != (high, across):
        grey = np.pad(grey, ((0, 0), (0, high - grey.shape[1]), (0, across - grey.shape[2])))
    mean, variance = grey.mean(axis=(1, 2), keepdims=True), grey.var(axis=(1, 2), keepdims=True)
    found: Floats = (grey - mean) / np.sqrt(variance + np.float32(1e-3))
    return found


def _halved(images: Floats) -> Floats:
    rows, high, across = images.shape
    even = images[:, : high // 2 * 2, : across // 2 * 2]
    found: Floats = even.reshape(rows, high // 2, 2, across // 2, 2).mean(axis=(2, 4))
    return found.reshape(rows, -1)


def _edges(images: Floats) -> Floats:
    """Return the smoothed image and the smoothed strength of its edges, on every 4th pixel."""
    sides = tuple(_padded(side) for side in images.shape[1:])
    before = [(side - given) // 2 for side, given in zip(sides, images.shape[1:], strict=True)]
    plane = np.pad(images, ((0, 0), *((b, side - given - b) for b, side, given in zip(
        before, sides, images.shape[1:], strict=True))), mode="symmetric")
    waves, smooth = _bank(sides)
    spectrum = fft.fft2(plane.astype(np.complex64))
    maps = [_smoothed(spectrum, smooth) / SMOOTH_DEVIATION]
    for scale, wave in waves:
        strength = np.abs(fft.ifft2(spectrum * wave))
        maps.append((_smoothed(fft.fft2(strength), smooth) - MEANS[scale]) / DEVIATIONS[scale])
    found: Floats = np.stack(maps, axis=1).reshape(len(images), -1)
    return found


def _smoothed(spectrum: Any, smooth: Floats) -> Floats:
    found: Floats = fft.ifft2(spectrum * smooth).real[:, ::STRIDE, ::STRIDE]
    return found


def _unit(numbers: Floats) -> Floats:
    norms = np.sqrt(np.einsum("ij,ij->i", numbers, numbers))
    found: Floats = numbers / np.maximum(norms, np.float32(1e-6))[:, None]
    return found


@lru_cache(maxsize=8)
def _bank(sides: tuple[int, ...]) -> tuple[tuple[tuple[int, Floats], ...], Floats]:
    """Return Morlet filters of each scale and direction, and the smoothing one, as spectra."""
    down, right = np.meshgrid(*(fft.fftfreq(side) * 2 * np.pi for side in sides), indexing="ij")
    waves = []
    for scale in range(SCALES):
        spread, frequency = 0.8 * 2**scale, 0.75 * np.pi / 2**scale
        for direction in range(DIRECTIONS):
            angle = np.pi * direction / DIRECTIONS
            along = right * np.cos(angle) + down * np.sin(angle)
            across = (down * np.cos(angle) - right * np.sin(angle)) * (DIRECTIONS / 4)
            bump = np.exp(-(spread**2) / 2 * ((along - frequency) ** 2 + across**2))
            still = np.exp(-(spread**2) / 2 * (along**2 + across**2))
            # Less as much of a plain bump as makes the mean zero: flat areas give nothing.
            waves.append((scale, (bump - bump[0, 0] * still).astype(np.float32)))
    spread = 0.8 * 2**SCALES
    smooth = np.exp(-(spread**2) / 2 * (down**2 + right**2))
    return tuple(waves), smooth.astype(np.float32)
