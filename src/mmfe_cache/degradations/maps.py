"""Published masks and maps, and which of them a picture is made with.

The published layout is that of CDD11's ``syn_data``: folders of rain and of snow masks, of which
each picture draws one by seed, and a depth and a light map for each photograph, by its name.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmfe_cache.errors import DataError, UsageError
from mmfe_cache.images import IMAGE_SUFFIXES, read_noted, read_notes
from mmfe_cache.names import composed, first_few, stem_of
from mmfe_cache.seeds import generator

from .fields import Field

FloatImage = NDArray[np.float32]
"""(H, W, 3) float32 RGB in [0, 1]: what every degradation takes and gives."""

_NAMED = 20
"""How many photographs a message names."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How one kind of degradation is drawn in one picture.

    Attributes:
        varied: draw from wide ranges instead of CDD11's; a mask is magnified.
        mask: a mask of rain or snow.
        depth: the photograph's depth map, bright near.
        light: the photograph's illumination map.
        dark: the same scene photographed in real low light, which takes the model's place.
    """

    varied: bool = False
    mask: Path | None = None
    depth: Path | None = None
    light: Path | None = None
    dark: Path | None = None

    @property
    def file(self) -> Path | None:
        """The file that is used, if any; no kind of degradation uses two."""
        return self.mask or self.depth or self.dark or self.light


Degradation = Callable[
    [FloatImage, float, np.random.Generator, FloatImage, Choice],
    tuple[FloatImage, dict[str, float]],
]
"""One kind of degradation, of: the picture, (H, W, 3) float32 in [0, 1]; the severity in [0, 1], 0
being none; the random stream; the picture before any degradation; how it is drawn in this picture.
Gives the picture, and the raw parameters in published units. `mmfe_cache.degradations.model` has a
row for each."""


@dataclass(frozen=True)
class DegradationConfig:
    """Where masks and maps come from, and how often they and varied weather are drawn.

    The default is the procedural model in CDD11's ranges.

    Attributes:
        rain_masks: files of streaks on black, one drawn for each picture.
        snow_masks: files of flakes on black.
        depth: depth maps by the photograph's name, bright near.
        light_maps: illumination maps by the photograph's name.
        dark: real low-light photographs of the same scenes by the photograph's name; photographs
            without one get the model's low light.
        mask_share: how often a mask is drawn where there are masks, in [0, 1].
        varied_share: how often the rest is drawn from wide ranges instead of CDD11's, in [0, 1].
    """

    rain_masks: tuple[Path, ...] = ()
    snow_masks: tuple[Path, ...] = ()
    depth: Mapping[str, Path] = field(default_factory=dict[str, Path])
    light_maps: Mapping[str, Path] = field(default_factory=dict[str, Path])
    dark: Mapping[str, Path] = field(default_factory=dict[str, Path])
    mask_share: float = 1.0
    varied_share: float = 0.0

    @classmethod
    def from_folders(
        cls,
        *,
        rain_masks: Path | None = None,
        snow_masks: Path | None = None,
        depth: Path | None = None,
        light_maps: Path | None = None,
        dark: Path | None = None,
        mask_share: float = 1.0,
        varied_share: float = 0.0,
        look: bool = True,
    ) -> DegradationConfig:
        """Find the files of each folder; None stands for the procedural model.

        Args:
            rain_masks: a folder; so are the next four.
            snow_masks: likewise.
            depth: likewise.
            light_maps: likewise.
            dark: likewise.
            mask_share: how often masks are used, in [0, 1].
            varied_share: how often the rest is drawn from wide ranges, in [0, 1].
            look: read every mask, so that a black one is refused.

        Raises:
            DataError: a folder is missing or holds no image, a mask is unreadable or black, or two
                maps claim one photograph.
            UsageError: a share outside [0, 1].
        """
        for name, share in (("mask_share", mask_share), ("varied_share", varied_share)):
            if not 0 <= share <= 1:
                raise UsageError(f"{name} is out of range", got=share, expected="0 to 1")
        found = cls(
            tuple(_images(rain_masks, "rain masks")),
            tuple(_images(snow_masks, "snow masks")),
            _by_name(depth, "depth maps"),
            _by_name(light_maps, "light maps"),
            _by_name(dark, "low-light photographs"),
            mask_share,
            varied_share,
        )
        for mask in (*found.rain_masks, *found.snow_masks) if look else ():
            if mask_amount(mask) == 0:
                raise DataError(
                    f"the mask {mask} is black",
                    expected="streaks or flakes, bright on black",
                    remedy="remove the file from the folder of masks",
                )
        return found

    def check(
        self, photographs: Iterable[str], kinds: Iterable[str], *, others: Iterable[str] = ()
    ) -> tuple[str, ...]:
        """Make sure that every photograph has its maps, and that they can be read.

        Args:
            photographs: names.
            kinds: of degradation that will be drawn.
            others: photographs that are not drawn now and may be the ones that maps belong to, such
                as those of the other split.

        Returns:
            A line for each mask and map that holds more than is read, such as several pages.

        Raises:
            DataError: maps are missing or unreadable, and all of them are named; one belongs to two
                photographs of one name; or no low-light photograph is of any of these scenes.
        """
        names, kinds = [composed(name) for name in photographs], set(kinds)
        for what, maps, kind in (
            ("depth map", self.depth, "haze"),
            ("light map", self.light_maps, "low"),
        ):
            missing = [name for name in names if name not in maps]
            if maps and kind in kinds and missing:
                raise DataError(
                    f"{len(missing)} of {len(names)} photographs have no {what}",
                    got=first_few(missing, _NAMED),
                    expected="a file of each photograph's name, with any image ending",
                    remedy="add the files, or leave these photographs out",
                )
        others = [composed(name) for name in others]
        self._refuse_shared(
            [n for n, count in Counter([*names, *others]).items() if count > 1], kinds
        )
        everyone = {*names, *others} if self.dark and "low" in kinds else set[str]()
        if everyone and everyone.isdisjoint(self.dark):
            raise DataError(
                "no low-light photograph has a photograph's name",
                got=f"{first_few(sorted(self.dark), _NAMED)}; the photographs are "
                f"{first_few(sorted(everyone), _NAMED)}",
                expected="files that are named as the photographs of the same scenes, with any "
                "image ending",
                remedy="rename the low-light photographs, or leave them out for the model's low "
                "light",
            )
        used = [
            *(self.rain_masks if "rain" in kinds else ()),
            *(self.snow_masks if "snow" in kinds else ()),
        ]
        for name in names:
            for maps, kind in ((self.depth, "haze"), (self.light_maps, "low"), (self.dark, "low")):
                if kind in kinds and name in maps:
                    _grey(maps[name])
                    used.append(maps[name])
        return tuple(f"{path}: {n}" for path in dict.fromkeys(used) for n in read_notes(path))

    def _refuse_shared(self, twice: Sequence[str], kinds: Collection[str]) -> None:
        """Refuse a map of a name that two photographs have, such as one of each split."""
        for what, maps, kind in (
            ("depth map", self.depth, "haze"),
            ("light map", self.light_maps, "low"),
            ("low-light photograph", self.dark, "low"),
        ):
            shared = [name for name in twice if name in maps]
            if kind in kinds and shared:
                raise DataError(
                    f"one {what} would serve two photographs of one name",
                    got=first_few(shared, _NAMED),
                    expected="photographs of other names in train than in test",
                    remedy=f"rename one of the two, and its {what}",
                )

    def choose(
        self, kind: str, photograph: str | None, seed_parts: tuple[str | int, ...]
    ) -> Choice:
        """Draw how ``kind`` is made in one picture; a pure function of its arguments.

        Args:
            kind: ``low``, ``haze``, ``rain`` or ``snow``.
            photograph: its name, by which maps are found; None has none.
            seed_parts: names the picture.
        """
        draw = generator("degrade-choice", kind, *seed_parts)
        masked, varied = draw.uniform(size=2)
        masks = {"rain": self.rain_masks, "snow": self.snow_masks}.get(kind, ())
        if masks and masked < self.mask_share:
            mask = masks[int(draw.integers(len(masks)))]
            return Choice(varied=bool(varied < self.varied_share), mask=mask)
        name = composed(photograph or "")
        if kind == "low" and name in self.dark:
            return Choice(dark=self.dark[name])
        return Choice(
            varied=bool(varied < self.varied_share),
            depth=self.depth.get(name) if kind == "haze" else None,
            light=self.light_maps.get(name) if kind == "low" else None,
        )

    @property
    def folders(self) -> frozenset[Path]:
        """Where masks and maps lie; pictures there are no photographs."""
        maps = (*self.depth.values(), *self.light_maps.values(), *self.dark.values())
        return frozenset(path.parent for path in (*self.rain_masks, *self.snow_masks, *maps))

    def spec(self) -> dict[str, Any]:
        """What identifies it: shares, and the files' names and digests. Empty for the default."""
        if self == DegradationConfig():
            return {}
        files: dict[str, Any] = {
            "rain_masks": {composed(path.name): _digest(path) for path in self.rain_masks},
            "snow_masks": {composed(path.name): _digest(path) for path in self.snow_masks},
        }
        for name in ("depth", "light_maps", "dark"):
            maps: Mapping[str, Path] = getattr(self, name)
            files[name] = {key: _digest(path) for key, path in sorted(maps.items())}
        return {**files, "mask_share": self.mask_share, "varied_share": self.varied_share}


PROCEDURAL = DegradationConfig()
"""CDD11's ranges, no file."""


def _images(folder: Path | None, what: str) -> list[Path]:
    if folder is None:
        return []
    if not folder.is_dir():
        raise DataError(
            f"the folder of {what} {folder} does not exist",
            expected="a folder of image files",
            remedy="correct the path, or leave the option out for the procedural model",
        )
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if not found:
        raise DataError(
            f"there are no {what} in {folder}",
            expected=f"files ending in {', '.join(sorted(IMAGE_SUFFIXES))}",
            remedy="name the folder that holds the files themselves; subfolders are not searched",
        )
    # A picture draws a mask by its place among them, which is the same on every file system.
    return sorted(found, key=lambda path: (composed(path.name), path.name))


def _by_name(folder: Path | None, what: str) -> dict[str, Path]:
    maps: dict[str, Path] = {}
    for path in _images(folder, what):
        name = stem_of(path)
        if name in maps:
            raise DataError(
                f"two {what} claim the photograph {name!r}",
                got=f"{maps[name]} and {path}",
                remedy="remove or rename one of them",
            )
        maps[name] = path
    return maps


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _grey(path: Path) -> Image.Image:
    """A mask or map as 8-bit grey; Pillow resizes these in integers, the same on every machine."""
    return _grey_as_of(path, *_stamp(path))


def mask_amount(path: Path) -> float:
    """The mean of a mask, in [0, 1]."""
    return _amount_as_of(path, *_stamp(path))


def _stamp(path: Path) -> tuple[int, int]:
    """By which a file that was written anew is read anew; what is wrong is said when it is read."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=256)
def _grey_as_of(path: Path, size: int, changed: int) -> Image.Image:
    del size, changed
    return Image.fromarray(read_noted(path)[0].max(axis=2))


@lru_cache(maxsize=65536)
def _amount_as_of(path: Path, size: int, changed: int) -> float:
    return float(np.asarray(_grey_as_of(path, size, changed)).mean() / 255)


def read_covering(
    path: Path, shape: tuple[int, ...], rng: np.random.Generator, zoom: float = 1.0
) -> Field:
    """A mask scaled to cover a picture, cut out and mirrored by the stream.

    Args:
        path: the mask.
        shape: (H, W, ...) of the picture.
        rng: the stream.
        zoom: how much larger than needed it becomes, at least 1: near drops are larger.

    Returns:
        (H, W) float32 in [0, 1].
    """
    mask = _grey(path)
    height, width = shape[:2]
    scale = max(height / mask.height, width / mask.width) * zoom
    size = (max(width, round(mask.width * scale)), max(height, round(mask.height * scale)))
    wide = mask.resize(size, Image.Resampling.BILINEAR)
    left, top = int(rng.integers(size[0] - width + 1)), int(rng.integers(size[1] - height + 1))
    box = (left, top, left + width, top + height)
    cut = np.asarray(wide.crop(box), np.float32) / np.float32(255)
    return np.ascontiguousarray(cut[:, ::-1]) if rng.uniform() < 0.5 else cut


def read_fitting(path: Path, shape: tuple[int, ...]) -> Field:
    """A map of a photograph at the photograph's size, (H, W) float32 in [0, 1]."""
    fitted = _grey(path).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(fitted, np.float32) / np.float32(255)
