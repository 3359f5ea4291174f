"""Randomness that depends on names only: the same stream on every machine and in every process."""

from __future__ import annotations

import hashlib

import numpy as np

_KEY_BYTES = 16


def seed_of(*parts: str | int) -> int:
    """A 128-bit integer that depends on ``parts`` and on nothing else.

    Parts are tagged by type and separated, so that ``("a", "bc")``, ``("ab", "c")``, ``(1,)``
    and ``("1",)`` all differ.
    """
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    for part in parts:
        # bool is an int to Python; a NumPy integer must count as the same number.
        tag, text = ("s", part) if isinstance(part, str) else ("i", str(int(part)))
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(f"{tag}{len(encoded)}:".encode())
        digest.update(encoded)
    return int.from_bytes(digest.digest(), "little")


def generator(*parts: str | int) -> np.random.Generator:
    """A random stream named by ``parts``.

    Args:
        parts: for example a purpose, a sample id and a seed.

    Returns:
        A PCG64 generator; equal parts give equal streams, on every machine.
    """
    return np.random.Generator(np.random.PCG64(seed_of(*parts)))
