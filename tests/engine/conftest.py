"""Small clinics that the tests of the whole engine share: one, and its neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Engine
from tests.engine.replay import CHANGES, open_clinic


@pytest.fixture(scope="session")
def clinics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Engine]]:
    """Open the base clinic under 'base', and each of its neighbours under what was changed."""
    folder = tmp_path_factory.mktemp("clinics")
    opened = {"base": open_clinic(folder, "base", None, None)}
    source = folder / "base" / "clinic.duckdb"
    for name, change in CHANGES.items():
        opened[name] = open_clinic(folder, name, source, change)
    yield opened
    for engine in opened.values():
        engine.close()


@pytest.fixture(scope="session")
def base(clinics: dict[str, Engine]) -> Engine:
    return clinics["base"]


@pytest.fixture(scope="session")
def base_path(base: Engine) -> Path:
    path = base.policy.database_path()
    assert isinstance(path, Path)
    return path
