"""Writing a CDD11-shaped set from clean photographs: atomic, resumable, deterministic."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmfe_cache.degradations import (
    CLEAR,
    COMPOSITIONS,
    PROCEDURAL,
    DegradationConfig,
    degrade,
    drawn_severities,
    kinds_of,
    split_class,
)
from mmfe_cache.errors import DataError, UsageError
from mmfe_cache.images import read_noted, write_png
from mmfe_cache.io import write_file
from mmfe_cache.progress import Progress
from mmfe_cache.samples import ImageArray

from .cdd11 import SEVERITIES_FILE, SPEC_FILE, UNFINISHED_FILE, made_sets, sets_left_out
from .photographs import Photograph, Split, not_photographs
from .synth_inputs import (
    MIN_SIDE,
    Partial,
    choose_partial,
    choose_photographs,
    inspect_photographs,
    prepare,
)
from .synth_live import DEFAULT_SEED, seed_parts

FORMAT = 1
"""Changes when the same photographs would give other files."""

TEST_SHARE = 0.2
"""Part of the scenes that goes to test where nothing else is said."""


@dataclass(frozen=True, slots=True)
class SynthReport:
    """What `write_synth` did.

    Attributes:
        out: the set's root.
        scenes: photographs of each split.
        compositions: the classes.
        pairs: degraded pictures of each split.
        written: image files written now.
        reused: image files found from an earlier run.
        seconds: how long it took.
    """

    out: Path
    scenes: Mapping[str, int]
    compositions: tuple[str, ...]
    pairs: Mapping[str, int]
    written: int
    reused: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "out": str(self.out)}


def write_synth(
    photos: Path | Sequence[Path],
    out: Path,
    *,
    test_photos: Path | Sequence[Path] | None = None,
    seed: int = DEFAULT_SEED,
    max_side: int | None = None,
    compositions: Sequence[str] = COMPOSITIONS,
    test_share: float = TEST_SHARE,
    partial_share: float = 0.0,
    config: DegradationConfig = PROCEDURAL,
    workers: int = 2,
    progress: Progress | None = None,
) -> SynthReport:
    """Write ``out/{train,test}/{clear,low,...}/NAME.png`` and each split's severities.

    With partial targets also ``out/{train,test}/low_rain-only-rain/NAME.png`` and the like: what a
    picture of ``low_rain`` is to become where rain alone is taken away.

    A run that was stopped goes on where it stopped when it is called with the same arguments;
    until it is done, ``out`` is marked as unfinished and `load_dataset` refuses it. Sets below
    ``photos``, this one and others, are left out with a warning.

    Args:
        photos: a folder (with subfolders) or files of clean photographs.
        out: the new set's root, in CDD11's layout.
        test_photos: photographs of the test split; None splits ``photos`` by scene.
        seed: another seed draws other weather and another split.
        max_side: shrink photographs whose longer side is larger, in pixels.
        compositions: the classes to write; ``clear`` among them makes the photographs a class of
            their own, to which nothing was done.
        test_share: part of the scenes that goes to test when ``test_photos`` is None; 0 and 1
            write one split only.
        partial_share: of the pictures with several degradations, the share that is there a second
            time with a partial target, drawn from `partial_classes`.
        config: masks and maps to use instead of procedural ones.
        workers: threads; the bytes do not depend on it.
        progress: where to report.

    Raises:
        DataError: a photograph is unreadable, too small, of another shape than its low-light
            photograph, or its name too long (all of them are named, and nothing is written), too
            few scenes, a photograph without its map, or ``out`` holds something else.
        UsageError: unknown composition, a senseless number, or ``test_share`` beside
            ``test_photos``.
    """
    started = time.monotonic()
    progress = progress or Progress()
    classes = tuple(compositions)
    for name in classes:
        kinds_of(name)
    if not classes or len(set(classes)) != len(classes):
        raise UsageError("compositions must be distinct classes", got=", ".join(classes) or "none")
    if max_side is not None and max_side < MIN_SIDE:
        raise UsageError("max_side is too small", got=max_side, expected=f"at least {MIN_SIDE}")
    if not 0 <= partial_share <= 1:
        raise UsageError("partial_share is out of range", got=partial_share, expected="0 to 1")
    if test_photos is not None and test_share != TEST_SHARE:
        raise UsageError(
            "the test photographs are named, so that no share of others can be test",
            got=f"a test share of {test_share:g} (--test-share)",
            expected="test photographs (--test-photos), or a share",
            remedy="leave one of them out",
        )
    places = (photos,) if test_photos is None else (photos, test_photos)
    made = tuple(dict.fromkeys(folder for where in places for folder in made_sets(where)))
    skip = (out, *made, *config.folders)
    chosen = choose_photographs(photos, test_photos, test_share, seed, skip=skip)
    targets = choose_partial(chosen, classes, partial_share, seed)
    lines = [line for where in places for line in not_photographs(where, skip=skip)]
    for line in (*lines, *sets_left_out(made)):
        progress.warn(line)
    names = (photograph.name for photographs in chosen.values() for photograph in photographs)
    kinds = {kind for name in classes for kind in kinds_of(name)}
    for line in config.check(names, kinds):
        progress.warn(line)
    dark = config.dark if "low" in kinds else {}
    digests = inspect_photographs(chosen, max_side, dark, progress)
    spec: dict[str, Any] = {
        "format": FORMAT,
        "seed": seed,
        "max_side": max_side,
        "compositions": list(classes),
        "scenes": digests,
    }
    # Sets of the procedural model keep the file that they always had.
    if config != PROCEDURAL:
        spec["degradations"] = config.spec()
    if partial_share > 0:
        spec["partial"] = targets
    plan = _Plan(out, chosen, classes, targets, seed, max_side, config, _claim(out, spec))
    written, reused = plan.write_all(workers, progress)
    if (out / UNFINISHED_FILE).exists():
        (out / UNFINISHED_FILE).replace(out / SPEC_FILE)
    counts = {split: len(photographs) for split, photographs in chosen.items()}
    extra = {split: sum(map(len, found.values())) for split, found in targets.items()}
    return SynthReport(
        out,
        counts,
        classes,
        {split: count * len(classes) + extra[split] for split, count in counts.items()},
        written,
        reused,
        time.monotonic() - started,
    )


def _claim(out: Path, spec: Mapping[str, Any]) -> bool:
    """Mark ``out`` as ours and unfinished; True when an earlier run already wrote there."""
    text = json.dumps(spec, indent=1, sort_keys=True)
    for name in (SPEC_FILE, UNFINISHED_FILE):
        marker = out / name
        if not marker.exists():
            continue
        if marker.read_bytes() != text.encode():
            raise DataError(
                f"{out} holds a set made from other photographs or settings",
                got=f"another {name}",
                expected="an empty folder, or the same command as before",
                remedy=f"rm -r '{out}', or choose another --out",
            )
        return True
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(
            f"{out} holds something else",
            expected="an empty or new folder",
            remedy="choose another --out",
        )
    write_file(out / UNFINISHED_FILE, text)
    return False


@dataclass(frozen=True)
class _Plan:
    """What is to be written; as for `write_synth`, and whether an earlier run wrote some of it."""

    out: Path
    chosen: Mapping[Split, tuple[Photograph, ...]]
    classes: tuple[str, ...]
    targets: Partial
    seed: int
    max_side: int | None
    config: DegradationConfig
    resumed: bool

    def write_all(self, workers: int, progress: Progress) -> tuple[int, int]:
        """Write every picture and each split's severities; files written now, and found."""
        written = files = 0
        each = len({*self.classes, CLEAR})
        total = sum(map(len, self.chosen.values())) * each
        total += sum(len(names) for found in self.targets.values() for names in found.values())
        with (
            progress.task("writing pictures", total, "pictures") as task,
            ThreadPoolExecutor(max(1, workers)) as pool,
        ):
            for split, photographs in self.chosen.items():
                if not photographs:
                    continue
                records: dict[str, Any] = {}
                scenes = pool.map(partial(self._write_scene, split), photographs)
                for photograph, (count, entries) in zip(photographs, scenes, strict=True):
                    written += count
                    made = len({f"{CLEAR}/{photograph.name}", *entries})
                    files += made
                    records.update(entries)
                    task.advance(made)
                text = json.dumps({"format": FORMAT, "samples": records}, indent=1, sort_keys=True)
                write_file(self.out / split / SEVERITIES_FILE, text)
        return written, files - written

    def _write_scene(self, split: Split, photograph: Photograph) -> tuple[int, dict[str, Any]]:
        """One photograph in all its classes; how many files were written, and its entries."""
        folder, own = self.out / split, self.targets[split].items()
        clean = prepare(read_noted(photograph.path)[0], self.max_side)
        written = self._write_missing(folder / CLEAR / f"{photograph.name}.png", clean)
        entries: dict[str, Any] = {}
        for composition in (*self.classes, *(c for c, names in own if photograph.name in names)):
            name = f"{composition}/{photograph.name}"
            if composition == CLEAR:
                entries[name] = {"severities": {}, "parameters": {}}
                continue
            whole, wanted = split_class(composition)
            drawn: dict[str, Any] = {
                "seed_parts": seed_parts(f"{whole}/{photograph.name}", split, self.seed),
                "config": self.config,
                "photograph": photograph.name,
            }
            keep = None if wanted is None else [k for k in kinds_of(whole) if k not in wanted]
            done = degrade(clean, whole, keep=keep, **drawn)
            written += self._write_missing(folder / f"{name}.png", done.image)
            severities = done.severities
            if wanted is not None:  # what is to be taken away, as a guide that reads them must ask
                everything = drawn_severities(whole, **drawn)
                severities = {kind: everything[kind] for kind in wanted}
            entries[name] = {"severities": severities, "parameters": done.parameters}
            if done.files:
                entries[name]["files"] = {kind: path.name for kind, path in done.files.items()}
        return written, entries

    def _write_missing(self, path: Path, image: ImageArray) -> int:
        # Files appear by rename, so one that is there is whole.
        if self.resumed and path.exists():
            return 0
        write_png(path, image)
        return 1
