"""CDD11 (OneRestore, ECCV 2024) on the disk, and sets of its layout that `write_synth` made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfe_cache.degradations import CLEAR, COMPOSITIONS, split_class
from mmfe_cache.errors import DataError
from mmfe_cache.names import composed, first_few
from mmfe_cache.parsing import parse_json

from .layouts import Layout, Part
from .pairing import by_clean_name
from .photographs import list_images

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
