"""`folder`: any two folders with equal file names, or photographs without ground truth."""

from __future__ import annotations

from pathlib import Path

from mmfe_cache.errors import DataError
from mmfe_cache.images import FileSource
from mmfe_cache.names import stem_of
from mmfe_cache.samples import Sample, SampleSet

from .layouts import (
    FolderCache,
    FoundPart,
    Layout,
    Part,
    find_part,
    half_layout,
    sample_set,
    samples_of,
)
from .pairing import by_name
from .photographs import Split, list_images, similar_folder

LABEL = "folder"
"""The class of every sample."""

PAIRS_OF_FOLDERS = (
    ("input", "target"),
    ("degraded", "clean"),
    ("input", "gt"),
    ("lq", "gt"),
    ("low", "high"),
    ("low", "gt"),
    ("rainy", "gt"),
    ("rain", "norain"),
    ("hazy", "gt"),
    ("hazy", "clear"),
    ("blur", "sharp"),
    ("noisy", "clean"),
)
"""Names of the degraded and the clean folder that are recognised, first match wins."""


_PART = Part(
    "folder",
    (LABEL,),
    tuple(
        Layout(f"{degraded} + {clean}", (degraded,), (clean,), by_name)
        for degraded, clean in PAIRS_OF_FOLDERS
    ),
)


def find_folder_pairs(split: Split, root: Path) -> FoundPart | None:
    """The two folders under ``root/<split>``, else under ``root``; None where there are none."""
    base = root / split if (root / split).is_dir() else root
    return find_part(base, _PART, FolderCache())


def shared_files(split: Split, root: Path) -> tuple[str, ...]:
    """A line for people where the split has no folder of its own."""
    if (root / split).is_dir():
        return ()
    return (f"no folder {split} under {root}: the same files serve every split",)


def load_folder(split: Split, root: Path) -> SampleSet:
    """The pairs under ``root/<split>``, else under ``root``.

    Without two such folders, the images that lie there are samples without an answer: enough
    for a cache and for restoring, not for training.

    Raises:
        DataError: no pair and no image is there.
    """
    base = root / split if (root / split).is_dir() else root
    warnings = list(shared_files(split, root))
    found = find_folder_pairs(split, root)
    if found is not None:
        warnings += found.warnings()
        name = found.layout.name
        return sample_set("folder", split, root, name, list(samples_of(found)), warnings)
    listing = list_images(base)
    images = listing.images
    if not images:
        near = [
            str(other)
            for names in PAIRS_OF_FOLDERS
            for name in names
            if (other := similar_folder(base / name)) is not None
        ]
        half = half_layout(base, _PART)
        if near:
            got = f"names that differ in case only: {', '.join(dict.fromkeys(near))}"
        else:
            got = "no folder of a known name" if half is None else half
        raise DataError(
            f"no pairs and no images under {base}",
            got=got,
            expected=" or ".join(f"{a}/ + {b}/" for a, b in PAIRS_OF_FOLDERS),
        )
    samples = [
        Sample(f"{LABEL}/{stem_of(path)}", FileSource(path), None, LABEL, stem_of(path))
        for path in images
    ]
    warnings += listing.left_out()
    warnings.append("images without ground truth: a cache can be built, nothing can be trained")
    return sample_set("folder", split, root, "images without answers", samples, warnings)
