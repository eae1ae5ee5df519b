"""Attacks use the clinics of the engine's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Engine
from engine.clinic import clinic_policy
from tests.engine.conftest import base, base_path, clinics

__all__ = ["base", "base_path", "clinics", "paid", "policy"]


@pytest.fixture
def policy(base_path: Path, tmp_path: Path) -> Path:
    """A policy with a real ledger and a witness, on a copy of the base clinic."""
    (tmp_path / "clinic.duckdb").write_bytes(base_path.read_bytes())
    text = clinic_policy(tmp_path / "clinic.duckdb", epsilon=3.0)
    (tmp_path / "clinic.yaml").write_text(f"{text}witness: {tmp_path}/elsewhere.witness\n")
    return tmp_path / "clinic.yaml"


@pytest.fixture
def paid(policy: Path) -> Iterator[Engine]:
    """An engine that charges."""
    with Engine.open(policy) as opened:
        yield opened
