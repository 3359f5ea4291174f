"""Samples as plain JSON over numbered pictures, and back."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfe_cache.datasets.pairing import sequence_of
from mmfe_cache.datasets.photographs import list_images
from mmfe_cache.datasets.sources import (
    DerivedSource,
    NoisySource,
    SyntheticSource,
    WindowSource,
)
from mmfe_cache.datasets.synth_live import settings_digest, settings_files
from mmfe_cache.errors import DataError
from mmfe_cache.images import FileSource
from mmfe_cache.samples import PixelSource, Sample, SampleSet


class PictureList:
    """The distinct pictures under a set's samples, numbered in order of first use."""

    def __init__(self) -> None:
        self.sources: list[PixelSource] = []
        self._numbers: dict[str, int] = {}

    def number(self, source: PixelSource) -> int:
        """The number of the picture below ``source``'s recipe."""
        leaf = leaf_of(source)
        if leaf.name not in self._numbers:
            self._numbers[leaf.name] = len(self.sources)
            self.sources.append(leaf)
        return self._numbers[leaf.name]


def leaf_of(source: PixelSource) -> PixelSource:
    """What is stored: the source at the bottom, a file as a rule, or synthetic weather.

    Noise costs training nothing, since it is drawn for the crop alone, and a window is a crop.
    Weather is drawn for the whole photograph, so that every crop would pay for all of it.
    """
    while isinstance(source, DerivedSource) and not isinstance(source, SyntheticSource):
        source = source.base
    return source


def dump_samples(samples: SampleSet, pictures: PictureList) -> bytes:
    """The samples of a set, deflated JSON; their pictures are added to ``pictures``."""
    return _deflated(
        [
            {
                "id": sample.id,
                "label": sample.label,
                "scene": sample.scene,
                "severities": None if sample.severities is None else dict(sample.severities),
                "noise_sigma": sample.noise_sigma,
                "degraded": _dump(sample.degraded, pictures),
                "clean": None if sample.clean is None else _dump(sample.clean, pictures),
            }
            for sample in samples
        ]
    )


def dump_about(samples: SampleSet, pictures: PictureList) -> bytes:
    """What set it is and what was found of it, deflated JSON."""
    about: dict[str, Any] = {
        "dataset": samples.dataset,
        "split": samples.split,
        "layout": samples.layout,
        "warnings": list(samples.warnings),
        "folders": _count_images(samples.root, pictures.sources),
    }
    if any(isinstance(source, SyntheticSource) for source in pictures.sources):
        about["settings"] = settings_digest(samples.root)
        about["settings_files"] = settings_files(samples.root)
    return _deflated(about)


def _deflated(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return zlib.compress(text.encode(), 6)


def _count_images(root: Path, sources: Sequence[PixelSource]) -> dict[str, int]:
    """Image files in each folder that pictures come from, so that later ones are noticed."""
    folders = {source.path.parent for source in sources if isinstance(source, FileSource)}
    return {
        folder.relative_to(root).as_posix(): len(list_images(folder).images)
        for folder in sorted(folders)
        if folder.is_relative_to(root)
    }


def load_json(content: bytes) -> Any:
    """Undo `dump_samples` or `dump_about`.

    Raises:
        DataError: the content is damaged.
    """
    try:
        return json.loads(zlib.decompress(content))
    except (zlib.error, ValueError) as problem:
        raise DataError("the pack's list of samples is damaged", got=str(problem)) from problem


def load_samples(content: bytes, picture: Callable[[int], PixelSource]) -> tuple[Sample, ...]:
    """The samples that `dump_samples` described, over the pictures of a pack.

    Raises:
        DataError: the content is damaged.
    """
    try:
        return tuple(
            Sample(
                entry["id"],
                _load(entry["degraded"], picture),
                None if entry["clean"] is None else _load(entry["clean"], picture),
                entry["label"],
                _scene(entry),
                entry["severities"],
                entry["noise_sigma"],
            )
            for entry in load_json(content)
        )
    except (KeyError, TypeError, ValueError, IndexError) as problem:
        raise DataError(
            "the pack's list of samples is damaged",
            got=f"{type(problem).__name__}: {problem}",
            remedy="remove the pack and run `mmfe data pack` again",
        ) from problem


def _dump(source: PixelSource, pictures: PictureList) -> dict[str, Any]:
    if isinstance(source, NoisySource):
        return {"noise": [source.sigma, source.id], "of": _dump(source.base, pictures)}
    if isinstance(source, WindowSource):
        window = [source.top, source.left, source.height, source.width]
        return {"window": window, "of": _dump(source.base, pictures)}
    return {"picture": pictures.number(source)}


def _scene(entry: Mapping[str, Any]) -> str:
    # In older packs each of GoPro's frames is a scene of its own.
    return sequence_of(entry["scene"]) if entry["label"] == "blur" else entry["scene"]


def _load(entry: Mapping[str, Any], picture: Callable[[int], PixelSource]) -> PixelSource:
    if "picture" in entry:
        return picture(entry["picture"])
    base = _load(entry["of"], picture)
    if "noise" in entry:
        sigma, name = entry["noise"]
        return NoisySource(base, sigma, name)
    top, left, height, width = entry["window"]
    return WindowSource(base, top, left, height, width)


_MEASURED = 0.5
"""Seconds for which reading is timed."""


def unpacked_cost(samples: SampleSet) -> str | None:
    """What reading crops from the unpacked files costs, measured on a few of them.

    Returns:
        One line for a warning before training; None where nothing would be gained.
    """
    pictures = {
        leaf.name: leaf
        for sample in samples.samples[:: max(1, len(samples) // 16)]
        for source in (sample.degraded, sample.clean)
        if source is not None and isinstance(leaf := leaf_of(source), FileSource | SyntheticSource)
    }
    if not pictures:
        return None
    made = any(isinstance(source, SyntheticSource) for source in pictures.values())
    started, read = time.monotonic(), 0
    for source in pictures.values():
        try:
            source.read()
        except DataError:
            continue
        read += 1
        if time.monotonic() - started > _MEASURED:
            break
    if read == 0:
        return None
    cost = (time.monotonic() - started) / read
    what = "decodes two whole pictures and makes one's weather" if made else "decodes two pictures"
    return (
        f"every training pair {what}, {2 * 1000 * cost:.0f} ms a pair on one core: "
        f"`mmfe data pack --dataset {samples.dataset} --root '{samples.root}'` avoids that"
    )
