"""`synth`: clean photographs under CDD11's degradations, computed at every read."""

from __future__ import annotations

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
from mmfe_cache.parsing import DuplicateKeyError, parse_yaml
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


def load_synthetic(split: Split, root: Path) -> SampleSet:
    """Photographs of ``root/train`` and ``root/test``, else those of ``root`` split by scene.

    The pictures equal those that `write_synth` writes from the same photographs with the same
    masks and maps, byte for byte. ``root/degradations.yaml`` names masks and maps.

    Raises:
        DataError: no photograph, too few scenes to split, or a mask or map is missing.
    """
    config, clear = read_config(root)
    maps = {path.resolve() for path in _folders(root)}
    if (root / "train").is_dir() and (root / "test").is_dir():
        folder, layout = root / split, "train/ + test/"
        photographs = find_photographs(folder)
    else:
        folder, layout = root, "one folder, split by scene"
        found = find_photographs(folder)
        if maps:
            # Masks and maps that lie below the root are no photographs.
            files = [p.path for p in found if not maps & set(p.path.resolve().parents)]
            found = find_photographs(files)
        photographs = split_photographs(found)[split]
    classes = (*COMPOSITIONS, CLEAR) if clear else COMPOSITIONS
    config.check((photograph.name for photograph in photographs), kinds_of("low_haze_rain_snow"))
    samples = [
        synthetic_sample(photograph, composition, split, DEFAULT_SEED, config)
        for composition in classes
        for photograph in photographs
    ]
    return sample_set("synth", split, root, layout, samples, list(not_photographs(folder)))


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


def read_config(root: Path) -> tuple[DegradationConfig, bool]:
    """The masks and maps that ``root/degradations.yaml`` names, and whether there is a clear class.

    Raises:
        DataError: the file cannot be read, or names something that is not there.
    """
    settings = _settings(root)
    folders = {
        key: None if value is None else root / value
        for key, value in (
            ("rain_masks", settings.rain_masks),
            ("snow_masks", settings.snow_masks),
            ("depth", settings.depth),
            ("light_maps", settings.light_maps),
            ("dark", settings.dark_photos),
        )
    }
    config = DegradationConfig.from_folders(
        **folders, mask_share=settings.mask_share, varied_share=settings.varied_share
    )
    return config, settings.clear


def _folders(root: Path) -> list[Path]:
    settings = _settings(root)
    named = (
        settings.rain_masks,
        settings.snow_masks,
        settings.depth,
        settings.light_maps,
        settings.dark_photos,
    )
    return [root / name for name in named if name is not None]


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
