"""The only source of random bits: a key or a seed in, exactly uniform bits and coins out."""

from __future__ import annotations

import builtins
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from hashlib import sha256

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

BYTES_PER_KEY = 64 * 2**20
_SEED_LIMIT = 2**256


@dataclass(slots=True)
class _Stream:
    """One process's keystream: a cipher, how much of it is left, and who may use it.

    A fork replaces the whole object, lock included, so that a child can neither repeat its
    parent's bits nor wait for a lock whose holder does not exist in the child.
    """

    next_key: Callable[[], bytes]
    pid: int = field(default_factory=os.getpid)
    lock: threading.Lock = field(default_factory=threading.Lock)
    cipher: CipherContext | None = None
    bytes_left: int = 0

    def take(self, size: int) -> bytes:
        pieces = []
        with self.lock:
            while size > 0:
                if self.cipher is None or self.bytes_left == 0:
                    self.cipher = _aes_ctr(self.next_key())
                    self.bytes_left = BYTES_PER_KEY
                piece = min(size, self.bytes_left)
                pieces.append(self.cipher.update(bytes(piece)))
                self.bytes_left -= piece
                size -= piece
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Randomness:
    """Random bits from AES-256 in counter mode; pass it to whatever draws.

    Guarantee (secure): no two bytes ever come from the same key and counter, across threads,
    forks and calls. Keys come from the operating system (os.urandom), one for each 64 MiB and
    for each process. A virtual machine that is copied while running copies its keys too.

    Guarantee (seeded): the same seed and the same calls give the same bits. Anybody who guesses
    the seed can take the noise away again, so it is for testing only: `is_secure` is False.
    """

    __slots__ = ("__weakref__", "_stream", "is_secure")

    def __init__(self, next_key: Callable[[], bytes], *, is_secure: bool) -> None:
        self.is_secure = is_secure
        self._stream = _Stream(next_key)
        os.register_at_fork(after_in_child=partial(_start_afresh, weakref.ref(self)))

    @classmethod
    def secure(cls) -> Randomness:
        """Return the source that releases must use."""
        return cls(partial(os.urandom, 48), is_secure=True)

    @classmethod
    def seeded(cls, seed: int) -> Randomness:
        """Return a repeatable, INSECURE source for tests.

        A forked child continues with bits that its parent does not use, but two children
        forked from the same parent draw the same ones.
        """
        if type(seed) is not int or not 0 <= seed < _SEED_LIMIT:
            raise ValueError(f"seed must be an integer from 0 to 2**256 - 1, got {seed!r}")
        return cls(_seeded_keys(b"discreet insecure seed %d" % seed), is_secure=False)

    @classmethod
    def keyed(cls, key: builtins.bytes, place: int) -> Randomness:
        """Return the bits that belong to a secret key and a place: the same whenever asked.

        Guarantee: for a key of 32 bytes from the operating system that nobody else knows, they
        are as good as fresh ones, and places do not share bits. A training run that was
        interrupted draws again what it drew before, and nothing else.
        """
        if not (len(key) == 32 and place >= 0):
            raise ValueError("a key has 32 bytes and a place is 0 or more")
        return cls(_seeded_keys(b"key %s place %d" % (key, place)), is_secure=True)

    def bytes(self, size: int) -> builtins.bytes:
        """Return `size` random bytes."""
        if not size >= 0:
            raise ValueError(f"the number of bytes cannot be negative, got {size!r}")
        stream = self._stream
        # The hook below sees forks made by Python; the process id sees those made by C code.
        if stream.pid != os.getpid():
            stream = self._stream = _Stream(_after_fork(stream.next_key))
        return stream.take(size)

    def uint64(self, size: int) -> npt.NDArray[np.uint64]:
        """Return `size` uniform 64-bit integers as a read-only array."""
        return np.frombuffer(self.bytes(8 * size), dtype="<u8").astype(np.uint64, copy=False)

    def integer_below(self, n: int) -> int:
        """Return a uniform integer from 0 to n - 1.

        Guarantee: exactly uniform, by rejection of bit strings that are not below n.
        """
        if not n >= 1:
            raise ValueError(f"integer_below needs n >= 1, got {n!r}")
        bits = (n - 1).bit_length()
        size = (bits + 7) // 8
        while True:
            drawn = int.from_bytes(self.bytes(size), "little") >> (8 * size - bits)
            if drawn < n:
                return drawn

    def bernoulli(self, p: Fraction) -> bool:
        """Return True with probability exactly `p`."""
        if not 0 <= p <= 1:
            raise ValueError(f"a probability lies between 0 and 1, got {p!r}")
        return self.integer_below(p.denominator) < p.numerator


def _aes_ctr(key_and_nonce: bytes) -> CipherContext:
    key, nonce = key_and_nonce[:32], key_and_nonce[32:]
    return Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor()


class _SeededKeys:
    """The n-th key of a seed is a hash of the seed and n."""

    __slots__ = ("count", "seed")

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self.count = 0

    def __call__(self) -> bytes:
        text = b"%d:%s" % (self.count, self.seed)
        self.count += 1
        return sha256(text).digest() + sha256(b"nonce " + text).digest()[:16]


def _seeded_keys(seed: bytes) -> Callable[[], bytes]:
    return _SeededKeys(seed)


def _after_fork(next_key: Callable[[], bytes]) -> Callable[[], bytes]:
    if isinstance(next_key, _SeededKeys):
        return _SeededKeys(b"forked at %d from %s" % (next_key.count, next_key.seed))
    return next_key


def _start_afresh(reference: weakref.ref[Randomness]) -> None:
    randomness = reference()
    if randomness is not None:
        randomness._stream = _Stream(_after_fork(randomness._stream.next_key))
