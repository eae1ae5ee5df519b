"""What DuckDB tells of one patient beside numbers, and a wrapper that noises them, and Discreet.

The power of the attack is tested too: what is tried here tells on DuckDB itself.
"""

from __future__ import annotations

import pytest

from benchmarks.attacks import channels
from benchmarks.attacks.curators import Kind


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, dict[str, bool]]:
    folder = tmp_path_factory.mktemp("channels")
    return {kind: channels.told(kind, folder / kind.name) for kind in Kind}


@pytest.mark.parametrize("channel", channels.CHANNELS)
def test_a_channel_tells_on_duckdb_and_not_here(
    channel: str, told: dict[Kind, dict[str, bool]]
) -> None:
    assert told[Kind.EXACT][channel]
    assert not told[Kind.DISCREET][channel]


def test_noise_on_numbers_alone_closes_few_of_them(told: dict[Kind, dict[str, bool]]) -> None:
    assert sum(told[Kind.UNBUDGETED].values()) >= 20
