"""CDD11 (OneRestore, ECCV 2024) on the disk, and its degradations made while reading (`synth`)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
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
    split_class,
)
from mmfe_cache.errors import DataError
from mmfe_cache.images import FileSource
from mmfe_cache.names import composed, first_few
from mmfe_cache.parsing import DuplicateKeyError, parse_json, parse_yaml
from mmfe_cache.samples import Sample, SampleSet

from .layouts import Layout, Part, sample_set
from .pairing import by_clean_name
from .photographs import (
    Photograph,
    Split,
    find_photographs,
    list_images,
    not_photographs,
    split_photographs,
)
from .sources import SyntheticSource

SCENES = {"train": 1183, "test": 200}
"""Published number of photographs."""

SPEC_FILE = "synth.json"
"""In a set that `write_synth` made: what it was made from. Its presence says the set is whole."""

UNFINISHED_FILE = "synth.unfinished.json"
"""The same while the set is being written."""

SEVERITIES_FILE = "severities.json"
"""In a made split: severities and raw parameters by sample id."""

_SPLIT_FOLDERS = {
    "OneRestore": "CDD-11_{split}",
    "OneRestore, nested": "CDD-11/CDD-11_{split}",
    "CDD11 README": "{split}",
    "MoCE-IR": "cdd11/{split}",
}


def cdd11_parts(split: str, root: Path) -> tuple[Part, ...]:
    """The parts of a split: one for every class, in the order of Table 1.

    A set made by `write_synth` says itself which classes and how many photographs it has.

    Raises:
        DataError: the set under ``root`` was never finished.
    """
    unfinished = root / UNFINISHED_FILE
    if unfinished.exists():
        raise DataError(
            f"the set under {root} is not finished",
            got=f"{unfinished.name}, which a run of `mmfe data synth` left when it was stopped",
            expected=f"{SPEC_FILE}",
            remedy="run the same `mmfe data synth` command again: it goes on where it stopped",
        )
    made = read_spec(root)
    classes: tuple[str, ...] = COMPOSITIONS if made is None else tuple(made["compositions"])
    if made is not None and not made["scenes"][split]:
        raise DataError(
            f"the set under {root} has no {split} split",
            got=f"made with {', '.join(made_splits(made))} only",
            remedy="run `mmfe data synth` with --test-share between 0 and 1 into another folder",
        )
    published = SCENES[split] if made is None else len(made["scenes"][split])
    names = () if made is None else tuple(sorted(made["scenes"][split]))
    parts: list[Part] = []
    for name in classes:
        layouts: list[Layout] = []
        for layout, folder in _SPLIT_FOLDERS.items():
            base = folder.format(split=split)
            layouts.append(
                Layout(
                    "mmfe data synth" if made is not None else layout,
                    (f"{base}/{name}",),
                    (f"{base}/{CLEAR}",),
                    published=published,
                    counted="published" if made is None else "recorded",
                )
            )
        parts.append(Part(name, (name,), tuple(layouts), names=names))
    if made is not None:
        parts += _partial_parts(split, made)
    return tuple(parts)


def _partial_parts(split: str, made: Mapping[str, Any]) -> list[Part]:
    """The classes of partial targets: pictures of a composition, each with an answer of its own."""
    parts: list[Part] = []
    for name, names in made.get("partial", {}).get(split, {}).items():
        layout = Layout(
            "mmfe data synth",
            (f"{split}/{split_class(name)[0]}",),
            (f"{split}/{name}",),
            pairing=by_clean_name,
            published=len(names),
            counted="recorded",
        )
        parts.append(Part(name, (name,), (layout,), names=tuple(sorted(names))))
    return parts


def made_splits(made: Mapping[str, Any]) -> tuple[str, ...]:
    """The splits of a made set that hold photographs."""
    return tuple(split for split in ("train", "test") if made["scenes"][split])


def read_spec(root: Path) -> Mapping[str, Any] | None:
    """What `write_synth` recorded under ``root``; None for the published set, or no folder."""
    if not root.is_dir():
        return None
    spec = _read_json(root / SPEC_FILE, "compositions", "scenes")
    if spec is not None and not {"train", "test"} <= set(spec["scenes"]):
        raise _unreadable(root / SPEC_FILE, "no list of both splits' scenes")
    return spec


def made_sets(where: Path | Sequence[Path]) -> tuple[Path, ...]:
    """Folders below the given ones in which `write_synth` made a set, or left one unfinished.

    Their pictures are no clean photographs: most of them are degraded, the others are copies.

    Raises:
        DataError: one of the given folders is such a set itself, or may not be read.
    """
    found: dict[Path, None] = {}
    for folder in [where] if isinstance(where, Path) else where:
        if not folder.is_dir():
            continue
        for marker in list_images(folder, recursive=True, wanted=_is_marker).images:
            if marker.parent == folder:
                raise DataError(
                    f"{folder} holds no clean photographs",
                    got=f"{marker.name}: a set that `mmfe data synth` made from some",
                    expected="photographs to which nothing was done",
                    remedy="name those that it was made from, or its own ones: the folder "
                    f"{CLEAR} of a split",
                )
            found[marker.parent] = None
    return tuple(found)


def _is_marker(path: Path) -> bool:
    return path.name in (SPEC_FILE, UNFINISHED_FILE)


def sets_left_out(sets: Sequence[Path]) -> list[str]:
    """A line for what `made_sets` found among photographs; none where there is no such set."""
    names = first_few([str(folder) for folder in sets])
    what = "a set that `mmfe data synth` made" if len(sets) == 1 else "sets of `mmfe data synth`"
    return [f"{names}: {what}, whose pictures are no clean photographs, left out"] if sets else []


def read_severities(split_folder: Path) -> Mapping[str, Mapping[str, float]]:
    """Severities by sample id; empty where the set records none."""
    path = split_folder / SEVERITIES_FILE
    recorded = _read_json(path, "samples")
    if recorded is None:
        return {}
    try:
        # Sets that were made before folders' names were composed hold them as they lay there.
        return {composed(name): entry["severities"] for name, entry in recorded["samples"].items()}
    except (AttributeError, KeyError, TypeError) as problem:
        raise _unreadable(path, f"{type(problem).__name__}: {problem}") from problem


def _read_json(path: Path, *keys: str) -> Mapping[str, Any] | None:
    try:
        found = parse_json(path.read_bytes(), path)
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as problem:
        raise _unreadable(path, str(problem)) from problem
    if not isinstance(found, dict) or not set(keys) <= set(found):  # pyright: ignore[reportUnknownArgumentType]
        raise _unreadable(path, f"no object with {' and '.join(keys)}")
    return found  # pyright: ignore[reportUnknownVariableType]


def _unreadable(path: Path, got: str) -> DataError:
    return DataError(
        f"{path} cannot be read",
        got=got,
        expected="the JSON file that `mmfe data synth` wrote",
        remedy="run `mmfe data synth` again into an empty folder",
    )


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


def load_synthetic(split: Split, root: Path) -> SampleSet:
    """Photographs of ``root/train`` and ``root/test``, else those of ``root`` split by scene.

    The pictures equal those that `write_synth` writes from the same photographs with the same
    masks and maps, byte for byte. ``root/degradations.yaml`` names masks and maps.

    Raises:
        DataError: no photograph, too few scenes to split, ``degradations.yaml`` cannot be read, or
            a mask or map is missing.
    """
    settings = _settings(root)
    named = {key: getattr(settings, key) for key in _FOLDERS}
    folders = {key: root / value for key, value in named.items() if value is not None}
    made = made_sets(root)
    # Masks and maps that lie below the root are not photographs either.
    skip = (*folders.values(), *made)
    dark = folders.pop("dark_photos", None)
    config = DegradationConfig.from_folders(
        **folders, dark=dark, mask_share=settings.mask_share, varied_share=settings.varied_share
    )
    if (root / "train").is_dir() and (root / "test").is_dir():
        folder, layout = root / split, "train/ + test/"
        photographs = find_photographs(folder, skip=skip)
        other = root / ("test" if split == "train" else "train")
        others = _names_below(other, skip) if config.dark else []
    else:
        folder, layout = root, "one folder, split by scene"
        found = find_photographs(folder, skip=skip)
        photographs = split_photographs(found)[split]
        others = [photograph.name for photograph in found]
    classes = (*COMPOSITIONS, CLEAR) if settings.clear else COMPOSITIONS
    names = [photograph.name for photograph in photographs]
    noted = config.check(names, kinds_of("low_haze_rain_snow"), others=others)
    samples = [
        synthetic_sample(photograph, composition, split, DEFAULT_SEED, config)
        for composition in classes
        for photograph in photographs
    ]
    unused = not_photographs(folder, skip=skip, known=[root / CONFIG_FILE])
    warnings = [*unused, *sets_left_out(made), *noted]
    return sample_set("synth", split, root, layout, samples, warnings)


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
        return Sample(name, clean, clean, composition, photograph.name, {})
    parts = seed_parts(name, split, seed)
    return Sample(
        name,
        SyntheticSource(clean, composition, parts, config, photograph.name),
        clean,
        composition,
        photograph.name,
        drawn_severities(composition, seed_parts=parts, config=config, photograph=photograph.name),
    )


def seed_parts(sample_id: str, split: Split, seed: int) -> tuple[str | int, ...]:
    """What names the random streams of a synthetic sample."""
    return ("synth", seed, split, sample_id)


def _settings(root: Path) -> SynthSettings:
    path = root / CONFIG_FILE
    known = {field.name: str(field.type) for field in fields(SynthSettings)}
    expected = ", ".join(known)
    try:
        found: Any = parse_yaml(path.read_text("utf-8-sig"), path)
    except FileNotFoundError:
        return SynthSettings()
    except DuplicateKeyError:
        raise
    except (OSError, ValueError, yaml.YAMLError) as problem:
        raise DataError(
            f"{path} cannot be read",
            got=str(problem),
            expected=f"a YAML mapping with any of {expected}",
            remedy="correct the file, or remove it for the procedural model",
        ) from problem
    if not isinstance(found, dict):
        raise DataError(
            f"{path} holds no settings",
            got=type(found).__name__,
            expected=f"a YAML mapping with any of {expected}",
            remedy="correct the file, or remove it for the procedural model",
        )
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
