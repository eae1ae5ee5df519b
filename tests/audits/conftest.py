"""Audits use the clinics of the engine's tests."""

from __future__ import annotations

from tests.engine.conftest import base, base_path, clinics

__all__ = ["base", "base_path", "clinics"]
