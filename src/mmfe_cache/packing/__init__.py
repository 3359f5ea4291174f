"""A split's pictures in one HDF5 file of tiles: a random crop at memory speed."""

from __future__ import annotations

from .reader import (
    PackedSource as PackedSource,
    PackReader as PackReader,
    forget_packs as forget_packs,
    open_pack as open_pack,
    pack_path as pack_path,
)
from .samples import unpacked_cost as unpacked_cost
from .writer import pack as pack
