"""`synth`: clean photographs under CDD11's degradations, computed at every read."""

from __future__ import annotations

from pathlib import Path

from mmfe_cache.degradations import COMPOSITIONS, drawn_severities
from mmfe_cache.images import FileSource
from mmfe_cache.samples import Sample, SampleSet

from .assemble import sample_set
from .sources import SyntheticSource
from .splits import (
    Photograph,
    Split,
    find_photographs,
    not_photographs,
    split_photographs,
)

DEFAULT_SEED = 0
"""The seed of the weather; the same as `write_synth`'s."""


def load_synthetic(split: Split, root: Path) -> SampleSet:
    """Photographs of ``root/train`` and ``root/test``, else those of ``root`` split by scene.

    The pictures equal those that `write_synth` writes from the same photographs, byte for byte.

    Raises:
        DataError: no photograph, or too few scenes to split.
    """
    if (root / "train").is_dir() and (root / "test").is_dir():
        folder, layout = root / split, "train/ + test/"
        photographs = find_photographs(folder)
    else:
        folder, layout = root, "one folder, split by scene"
        photographs = split_photographs(find_photographs(folder))[split]
    samples = [
        synthetic_sample(photograph, composition, split, DEFAULT_SEED)
        for composition in COMPOSITIONS
        for photograph in photographs
    ]
    return sample_set("synth", split, root, layout, samples, list(not_photographs(folder)))


def synthetic_sample(photograph: Photograph, composition: str, split: Split, seed: int) -> Sample:
    """One photograph under one composition."""
    name = f"{composition}/{photograph.name}"
    clean = FileSource(photograph.path)
    parts = seed_parts(name, split, seed)
    return Sample(
        name,
        SyntheticSource(clean, composition, parts),
        clean,
        composition,
        photograph.name,
        drawn_severities(composition, seed_parts=parts),
    )


def seed_parts(sample_id: str, split: Split, seed: int) -> tuple[str | int, ...]:
    """What names the random streams of a synthetic sample."""
    return ("synth", seed, split, sample_id)
