"""Where data sets, caches and runs lie unless a command says otherwise.

The environment moves each of the three, so that a disk of another name needs no option in every
command. One module, because the cache, training and the command line must agree.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """A folder with a default that an environment variable moves.

    Attributes:
        variable: the environment variable.
        default: relative to the working directory.
        holds: what lies in it, for people.
    """

    variable: str
    default: str
    holds: str

    @property
    def folder(self) -> Path:
        """What the variable names, ``~`` spelled out; the default where it is not set or empty."""
        return Path(os.environ.get(self.variable) or self.default).expanduser()


DATA = Place("MMFE_DATA", "data", "data sets, each in a folder of its name")
CACHE = Place("MMFE_CACHE", "cache", "caches of embeddings, as DATASET/SPLIT/GUIDE.zarr")
RUNS = Place("MMFE_RUNS", "runs", "trainings, each in a folder of its recipe's name")
