"""The data set `synth`: one's own photographs under CDD11's degradations, made while reading."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import yaml

from mmfe_cache.degradations import (
    CLEAR,
    COMPOSITIONS,
    PROCEDURAL,
    DegradationConfig,
    drawn_severities,
    kinds_of,
)
from mmfe_cache.errors import DataError
from mmfe_cache.images import FileSource
from mmfe_cache.names import composed
from mmfe_cache.parsing import DuplicateKeyError, parse_yaml
from mmfe_cache.samples import Sample, SampleSet

from .cdd11 import made_sets, sets_left_out
from .layouts import sample_set
from .photographs import (
    Photograph,
    Split,
    find_photographs,
    list_images,
    not_photographs,
    split_photographs,
)
from .sources import SyntheticSource

DEFAULT_SEED = 0
"""The seed of the weather; the same as `write_synth`'s."""

CONFIG_FILE = "degradations.yaml"
"""In the root of the data set `synth`: where masks and maps lie, see `SynthSettings`."""


@dataclass(frozen=True, slots=True)
class SynthSettings:
    """What ``degradations.yaml`` says; folders are relative to it.

    Attributes:
        rain_masks: a folder, see `DegradationConfig.from_folders`; so are the next four.
        snow_masks: likewise.
        depth: likewise.
        light_maps: likewise.
        dark_photos: likewise.
        mask_share: how often masks are used.
        varied_share: how often degradations are drawn from wide ranges.
        clear: whether there is a class of pictures to which nothing was done.
    """

    rain_masks: str | None = None
    snow_masks: str | None = None
    depth: str | None = None
    light_maps: str | None = None
    dark_photos: str | None = None
    mask_share: float = 1.0
    varied_share: float = 0.0
    clear: bool = False


_FOLDERS = ("rain_masks", "snow_masks", "depth", "light_maps", "dark_photos")
"""The keys of ``degradations.yaml`` that name folders."""


def settings_digest(root: Path) -> str:
    """SHA-256 of ``root/degradations.yaml``; that of nothing where there is none."""
    file = root / CONFIG_FILE
    return hashlib.sha256(file.read_bytes() if file.is_file() else b"").hexdigest()


def settings_files(root: Path) -> dict[str, int] | None:
    """The masks and maps that ``degradations.yaml`` names: their sizes in bytes by key and name.

    Names and sizes stay when a data set is copied; times do not.

    Returns:
        None where a folder that it names is not there.

    Raises:
        DataError: ``degradations.yaml`` cannot be read.
    """
    found: dict[str, int] = {}
    for key, folder in _folders(root, _settings(root)).items():
        if not folder.is_dir():
            return None
        for path in list_images(folder).images:
            found[f"{key}/{composed(path.name)}"] = path.stat().st_size
    return found


def load_synthetic(split: Split, root: Path) -> SampleSet:
    """Photographs of ``root/train`` and ``root/test``, else those of ``root`` split by scene.

    The pictures equal those that `write_synth` writes from the same photographs with the same
    masks and maps, byte for byte. ``root/degradations.yaml`` names masks and maps.

    Raises:
        DataError: no photograph, too few scenes to split, ``degradations.yaml`` cannot be read, or
            a mask or map is missing.
    """
    found = _find(split, root)
    names = [photograph.name for photograph in found.photographs]
    others = set(_names_below(found.other, found.skip)) if found.config.folders else set[str]()
    if found.other == found.folder:
        others -= set(names)
    noted = found.config.check(names, kinds_of("low_haze_rain_snow"), others=others)
    samples = [
        synthetic_sample(photograph, composition, split, DEFAULT_SEED, found.config)
        for composition in found.classes
        for photograph in found.photographs
    ]
    unused = not_photographs(found.folder, skip=found.skip, known=[root / CONFIG_FILE])
    warnings = [*unused, *sets_left_out(found.made), *noted]
    return sample_set("synth", split, root, found.layout, samples, warnings)


def made_sources(split: Split, root: Path) -> dict[str, SyntheticSource]:
    """The pictures of a split that are made while reading, by sample id; no file is opened.

    Returns:
        None of them where the photographs, or what ``degradations.yaml`` names, are gone.
    """
    try:
        found = _find(split, root, look=False)
    except DataError:
        return {}
    return {
        f"{composition}/{photograph.name}": _source(
            photograph, composition, split, DEFAULT_SEED, found.config
        )
        for composition in found.classes
        if composition != CLEAR
        for photograph in found.photographs
    }


@dataclass(frozen=True, slots=True)
class _Found:
    """What lies under a root.

    Attributes:
        classes: of the pictures.
        config: masks and maps.
        layout: how the photographs lie there.
        folder: where those of the split lie.
        photographs: of the split.
        other: where those of the other split lie.
        made: sets of `write_synth` below the root.
        skip: folders in which no photographs are looked for.
    """

    classes: tuple[str, ...]
    config: DegradationConfig
    layout: str
    folder: Path
    photographs: tuple[Photograph, ...]
    other: Path
    made: tuple[Path, ...]
    skip: tuple[Path, ...]


def _find(split: Split, root: Path, *, look: bool = True) -> _Found:
    """Find photographs, masks and maps.

    Args:
        split: train or test.
        root: of the data set.
        look: as for `DegradationConfig.from_folders`.

    Raises:
        DataError: as for `load_synthetic`.
    """
    settings = _settings(root)
    folders = _folders(root, settings)
    made = made_sets(root)
    # Masks and maps that lie below the root are not photographs either.
    skip = (*folders.values(), *made)
    dark = folders.pop("dark_photos", None)
    config = DegradationConfig.from_folders(
        **folders,
        dark=dark,
        mask_share=settings.mask_share,
        varied_share=settings.varied_share,
        look=look,
    )
    classes = (*COMPOSITIONS, CLEAR) if settings.clear else COMPOSITIONS
    if (root / "train").is_dir() and (root / "test").is_dir():
        layout, folder = "train/ + test/", root / split
        other = root / ("test" if split == "train" else "train")
        photographs = find_photographs(folder, skip=skip)
    else:
        layout, folder, other = "one folder, split by scene", root, root
        photographs = split_photographs(find_photographs(root, skip=skip))[split]
    return _Found(classes, config, layout, folder, photographs, other, made, skip)


def _folders(root: Path, settings: SynthSettings) -> dict[str, Path]:
    """The folders that settings name, by their keys."""
    named: Mapping[str, str | None] = {key: getattr(settings, key) for key in _FOLDERS}
    return {key: root / value for key, value in named.items() if value is not None}


def _names_below(folder: Path, skip: tuple[Path, ...]) -> list[str]:
    """Names of the other split's photographs; what is wrong with them is said when it is loaded."""
    try:
        return [photograph.name for photograph in find_photographs(folder, skip=skip)]
    except DataError:
        return []


def synthetic_sample(
    photograph: Photograph,
    composition: str,
    split: Split,
    seed: int,
    config: DegradationConfig = PROCEDURAL,
) -> Sample:
    """One photograph under one composition."""
    name = f"{composition}/{photograph.name}"
    clean = FileSource(photograph.path)
    if composition == CLEAR:
        return Sample(name, clean, clean, composition, photograph.scene, {})
    source = _source(photograph, composition, split, seed, config)
    severities = drawn_severities(
        composition, seed_parts=source.seed_parts, config=config, photograph=photograph.name
    )
    return Sample(name, source, clean, composition, photograph.scene, severities)


def _source(
    photograph: Photograph, composition: str, split: Split, seed: int, config: DegradationConfig
) -> SyntheticSource:
    parts = seed_parts(f"{composition}/{photograph.name}", split, seed)
    return SyntheticSource(FileSource(photograph.path), composition, parts, config, photograph.name)


def seed_parts(sample_id: str, split: Split, seed: int) -> tuple[str | int, ...]:
    """What names the random streams of a synthetic sample."""
    return ("synth", seed, split, sample_id)


def _settings(root: Path) -> SynthSettings:
    path = root / CONFIG_FILE
    known = {field.name: str(field.type) for field in fields(SynthSettings)}
    expected = ", ".join(known)

    def unusable(why: str, got: str) -> DataError:
        return DataError(
            f"{path} {why}",
            got=got,
            expected=f"a YAML mapping with any of {expected}",
            remedy="correct the file, or remove it for the procedural model",
        )

    try:
        found: Any = parse_yaml(path.read_text("utf-8-sig"), path)
    except FileNotFoundError:
        return SynthSettings()
    except DuplicateKeyError:
        raise
    except (OSError, ValueError, yaml.YAMLError) as problem:
        raise unusable("cannot be read", str(problem)) from problem
    if not isinstance(found, dict):
        raise unusable("holds no settings", type(found).__name__)
    given = cast("dict[str, Any]", found)
    kinds = {"str | None": (str, type(None)), "float": (float, int), "bool": (bool,)}
    for key, value in given.items():
        if key not in known:
            raise DataError(f"{path} has an unknown key", got=key, expected=expected)
        wrong = not isinstance(value, kinds[known[key]])
        if wrong or (isinstance(value, bool) and known[key] != "bool"):
            raise DataError(
                f"{path}: {key} is of a wrong type", got=repr(value), expected=known[key]
            )
    return SynthSettings(**given)
