"""Audits use the clinics of the engine's tests, and write the figures that they measure."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import machine
from tests.engine.conftest import base, base_path, clinics

__all__ = ["Figure", "base", "base_path", "clinics", "figure"]

Figure = Callable[[str, Any], None]
FILE = "DISCREET_FIGURES"  # names the JSON file that measured figures are put into


@pytest.fixture(scope="session")
def figure() -> Iterator[Figure]:
    """Keep what an audit measured, beside what the file has of other audits."""
    found: dict[str, Any] = {}
    yield found.__setitem__
    path = Path(os.environ.get(FILE, ""))
    if path.name and found:
        old = json.loads(path.read_text())["figures"] if path.exists() else {}
        figures = dict(sorted((old | found).items()))
        path.write_text(json.dumps({"machine": machine("scipy"), "figures": figures}, indent=2)
                        + "\n")
