"""CDD11: eleven compositions of low light, haze, rain and snow (OneRestore, ECCV 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmfe_cache.degradations import CLEAR, COMPOSITIONS
from mmfe_cache.errors import DataError
from mmfe_cache.parsing import parse_json

from .parts import Layout, Part

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
                )
            )
        parts.append(Part(name, (name,), tuple(layouts), names=names))
    return tuple(parts)


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


def read_severities(split_folder: Path) -> Mapping[str, Mapping[str, float]]:
    """Severities by sample id; empty where the set records none."""
    path = split_folder / SEVERITIES_FILE
    recorded = _read_json(path, "samples")
    if recorded is None:
        return {}
    try:
        return {name: entry["severities"] for name, entry in recorded["samples"].items()}
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
