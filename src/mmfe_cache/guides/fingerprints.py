"""Fingerprints of guides: whether one sees as another did.

In a module of its own, because whoever restores a photograph compares two guides and reads no
store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def guide_fingerprint(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a store's fingerprint that says how its guide sees: equal for all splits."""
    return {key: value for key, value in fingerprint.items() if key.startswith("guide.")}


def differing_guide(trained: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The parts of two guides' fingerprints that differ, as ``key: trained / here``.

    Args:
        trained: ``guide.*`` keys, as a store has them.
        here: likewise.
    """
    return [
        f"{key.removeprefix('guide.')}: {trained.get(key)!r} / {here.get(key)!r}"
        for key in sorted(trained.keys() | here.keys())
        if trained.get(key) != here.get(key)
    ]


def only_precision(differing: Sequence[str]) -> bool:
    """Whether two guides differ in nothing but precision, which changes their last digits only."""
    return all(line.split(":")[0].endswith("dtype") for line in differing)
