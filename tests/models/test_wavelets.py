"""Fixed features of images: bounded, each of its own image alone, and good for something."""

from __future__ import annotations

import numpy as np
import pytest

from models.encoding import Encoding
from models.wavelets import NORM, features, width
from planner.training_view import Coding, Feature
from tests.models.patients import TRUTH


def images(rows: int, shape: tuple[int, ...] = (28, 28, 1)) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (rows, *shape)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 8, 3), (9, 20, 1), (65, 40, 1), (1, 1, 1),
                                   (100, 3, 2)])
def test_every_shape_has_bounded_features(shape: tuple[int, ...]) -> None:
    given = images(5, shape)
    given[0], given[1] = 0, 255
    found = features(given)
    assert found.shape == (5, width(shape))
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 1
    assert (np.linalg.norm(found, axis=1) <= NORM * np.sqrt(2) + 1e-4).all()
    assert width(shape) <= width((32, 32, 1))


def test_an_image_is_seen_alone() -> None:
    """The attack: other images, or their number, move the features of one."""
    given = images(700)
    whole = features(given)
    assert np.array_equal(features(given[600:601]), whole[600:601])
    other = given.copy()
    other[:600] = 255
    assert np.array_equal(features(other)[600:], whole[600:])


def test_brightness_and_contrast_do_not_count() -> None:
    given = images(3) // 4 + 50
    brighter = (given * 2 + 10).astype(np.uint8)
    assert np.allclose(features(given), features(brighter), atol=0.02)


def test_edges_of_two_directions_are_told_apart() -> None:
    """Stripes of eight random places each way: a plane between them exists."""
    rng = np.random.default_rng(1)
    phase = rng.uniform(0, 6, (40, 1))
    down = np.sin(np.arange(28) * 1.5 + phase)[:, :, None] * np.ones((1, 1, 28))
    across = np.swapaxes(down, 1, 2)
    given = np.concatenate([down, across])[..., None] * 100 + 128
    found = features(given.astype(np.uint8))
    apart = found[:20].mean(0) - found[40:60].mean(0)
    scores = found @ apart
    assert scores[20:40].min() > scores[60:].max()


def test_an_encoding_turns_images_into_columns() -> None:
    image = Feature("xray", Coding.IMAGE, False, shape=(8, 8))
    age = Feature("age", Coding.NUMBER, False, 0.0, 100.0)
    encoding = Encoding((age, image), TRUTH).with_waves()
    given = images(2, (8, 8))
    columns = encoding.columns({"age": [0, 100], "xray": [given[0], b"short"]})
    matrix = encoding.matrix(columns)
    assert matrix.shape == (2, 1 + width((8, 8))) == (2, encoding.width)
    assert matrix[:, 0].tolist() == [-1, 1]
    assert np.array_equal(matrix[0, 1:], features(given[:1, ..., None])[0])
    assert encoding.pixels(columns) is None
    assert encoding.image is None
    assert Encoding.from_dict(encoding.to_dict()) == encoding
