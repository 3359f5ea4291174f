"""A split's pictures in one HDF5 file of tiles: a random crop at memory speed."""

from __future__ import annotations

from .reader import PackedSource, PackReader, forget_packs, open_pack, pack_path
from .samples import unpacked_cost
from .writer import pack

__all__ = [
    "PackReader",
    "PackedSource",
    "forget_packs",
    "open_pack",
    "pack",
    "pack_path",
    "unpacked_cost",
]
