"""Random bits: exactly uniform, never repeated by forks or threads, marked if insecure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from mechanisms import randomness as module
from mechanisms.randomness import Randomness

FALSE_ALARM = 1e-6


def in_child(randomness: Randomness, size: int) -> bytes:
    """Return what a forked child draws first."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, randomness.bytes(size))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        drawn = pipe.read()
    os.waitpid(child, 0)
    return drawn


def test_two_secure_sources_differ_and_say_so() -> None:
    first, second = Randomness.secure(), Randomness.secure()
    assert first.is_secure
    assert first.bytes(32) != second.bytes(32)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100_000])
def test_gives_as_many_bytes_as_asked(size: int) -> None:
    assert len(Randomness.secure().bytes(size)) == size


def test_secure_bytes_are_balanced() -> None:
    counts = np.bincount(np.frombuffer(Randomness.secure().bytes(2**20), dtype=np.uint8))
    # Not seeded: 1e-12 keeps this from ever failing by chance.
    assert stats.chisquare(counts).pvalue > 1e-12


def test_seeded_is_repeatable_and_marked_insecure() -> None:
    first, second, other = (Randomness.seeded(s) for s in (7, 7, 8))
    assert not first.is_secure
    drawn = first.bytes(100)
    assert drawn == second.bytes(40) + second.bytes(60)
    assert drawn != other.bytes(100)


def test_seeded_bits_never_change_between_versions() -> None:
    """Tests elsewhere rest on them."""
    assert Randomness.seeded(0).bytes(8).hex() == "959d62d7b820cdbf"


@pytest.mark.parametrize("seed", [-1, 2**256, 1.0, None, True, "1"])
def test_a_seed_is_a_natural_number(seed: object) -> None:
    with pytest.raises(ValueError, match="seed must be"):
        Randomness.seeded(seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [Randomness.secure, lambda: Randomness.seeded(1)])
def test_a_forked_child_draws_other_bits(source: object) -> None:
    randomness = source()  # type: ignore[operator]
    randomness.bytes(16)
    from_child = in_child(randomness, 32)
    assert len(from_child) == 32
    assert from_child != randomness.bytes(32)


def test_two_children_of_a_secure_source_differ() -> None:
    randomness = Randomness.secure()
    randomness.bytes(16)
    assert in_child(randomness, 32) != in_child(randomness, 32)


def test_a_fork_is_noticed_even_if_the_process_id_is_the_same() -> None:
    """Process ids are reused: a grandchild may have the number of its dead grandparent."""
    randomness = Randomness.secure()
    before = randomness._stream
    module._start_afresh(module.weakref.ref(randomness))
    assert randomness._stream is not before


def test_a_fork_is_noticed_by_the_process_id_alone() -> None:
    randomness = Randomness.secure()
    randomness.bytes(16)
    before = randomness._stream
    before.pid = -1
    randomness.bytes(16)
    assert randomness._stream is not before


def test_a_child_does_not_wait_for_a_lock_held_in_its_parent() -> None:
    code = (
        "import os, sys\n"
        "from mechanisms.randomness import Randomness\n"
        "r = Randomness.secure()\n"
        "r._stream.lock.acquire()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    r.bytes(8)\n"
        "    os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    root = os.path.dirname(os.path.dirname(os.path.abspath(module.__file__)))
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20, cwd=root)


def test_a_new_key_every_64_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.BYTES_PER_KEY == 64 * 2**20
    monkeypatch.setattr(module, "BYTES_PER_KEY", 1024)
    keys: list[bytes] = []

    def next_key() -> bytes:
        keys.append(os.urandom(48))
        return keys[-1]

    randomness = Randomness(next_key, is_secure=False)
    drawn = randomness.bytes(1000) + randomness.bytes(5000)
    assert len(keys) == 6
    assert len({drawn[i : i + 16] for i in range(0, 6000, 16)}) == 375


def test_threads_never_share_bits() -> None:
    randomness = Randomness.seeded(3)
    with ThreadPoolExecutor(8) as pool:
        pieces = list(pool.map(lambda _: randomness.bytes(64), range(2_000)))
    alone = Randomness.seeded(3)
    assert Counter(pieces) == Counter(alone.bytes(64) for _ in range(2_000))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 256, 257])
def test_integer_below_is_uniform(n: int) -> None:
    randomness = Randomness.seeded(n)
    counts = np.bincount([randomness.integer_below(n) for _ in range(20_000)], minlength=n)
    assert len(counts) == n
    assert n == 1 or stats.chisquare(counts).pvalue > FALSE_ALARM


def test_integer_below_reaches_far() -> None:
    drawn = [Randomness.seeded(s).integer_below(10**100) for s in range(200)]
    assert all(0 <= d < 10**100 for d in drawn)
    assert max(drawn) > 9 * 10**99


@pytest.mark.parametrize("p", [Fraction(1, 3), Fraction(1, 1000), Fraction(999, 1000)])
def test_bernoulli_has_its_probability(p: Fraction) -> None:
    randomness = Randomness.seeded(5)
    heads = sum(randomness.bernoulli(p) for _ in range(30_000))
    assert stats.binomtest(heads, 30_000, float(p)).pvalue > FALSE_ALARM


def test_certain_coins_are_certain() -> None:
    randomness = Randomness.secure()
    assert not any(randomness.bernoulli(Fraction(0)) for _ in range(100))
    assert all(randomness.bernoulli(Fraction(1)) for _ in range(100))


@pytest.mark.parametrize("p", [Fraction(-1, 2), Fraction(3, 2), float("nan")])
def test_a_probability_is_between_0_and_1(p: Fraction) -> None:
    with pytest.raises(ValueError, match="probability"):
        Randomness.secure().bernoulli(p)


@pytest.mark.parametrize("n", [0, -1])
def test_impossible_sizes_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match="n >= 1"):
        Randomness.secure().integer_below(n)
    with pytest.raises(ValueError, match="negative"):
        Randomness.secure().bytes(-1)


def test_uint64_uses_all_bits() -> None:
    words = Randomness.seeded(6).uint64(4_000)
    assert words.dtype == np.uint64
    ones = [int(((words >> np.uint64(b)) & np.uint64(1)).sum()) for b in range(64)]
    assert all(1_750 < n < 2_250 for n in ones)
