"""What lies under a root: every part's layout, counts, partners, sizes, and leaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mmfe_cache.errors import DataError
from mmfe_cache.images import FileSource, read_rgb8, read_size
from mmfe_cache.names import printable
from mmfe_cache.progress import Progress
from mmfe_cache.samples import Sample, SampleSet

from .folder import find_folder_pairs, shared_files
from .layouts import Counted, FoundPart, Part, missing_part, samples_of
from .leaks import Leak, clean_sources_of, count_distinct, find_leaks, fingerprints
from .pairing import FilePair
from .photographs import Split
from .registry import (
    SPLITS,
    check_split,
    data_root,
    dataset_info,
    find_pack,
    find_parts,
    not_there,
    splits_of,
)


@dataclass(frozen=True, slots=True)
class PartCheck:
    """What was found of one part.

    Attributes:
        name: the part.
        split: of the data set.
        layout: the arrangement that was recognised; None when none was.
        folder: where it lies.
        found: pairs (for denoising: photographs).
        published: how many a complete one has.
        counted: who says so, as in `Layout`.
        samples: samples that it gives, noise levels and windows counted.
        labels: the classes of these samples.
        missing: names that should be there: partners that are missing.
        extra: files that belong to nothing: no images, or without a partner.
        unreadable: files that cannot be decoded, with the reason.
        mismatched: pairs whose pictures differ in size.
        sizes: "WIDTHxHEIGHT" of the clean pictures and how many have it.
        notes: what else a user should know.
    """

    name: str
    split: Split
    layout: str | None = None
    folder: Path | None = None
    found: int = 0
    published: int | None = None
    samples: int = 0
    labels: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    notes: tuple[str, ...] = ()
    counted: Counted = "published"

    @property
    def ok(self) -> bool:
        """Whether every pair that is there can be used and none is known to be missing."""
        return self.layout is not None and not (
            self.missing or self.unreadable or self.mismatched or self.incomplete
        )

    @property
    def incomplete(self) -> bool:
        """Whether fewer files are there than published or recorded."""
        return self.published is not None and self.found < self.published

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        about = asdict(self)
        del about["counted"]
        folder = None if self.folder is None else str(self.folder)
        return {"name": self.name, "split": self.split, "ok": self.ok, **about, "folder": folder}


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check_dataset` found.

    Attributes:
        dataset: its name.
        root: where it was looked for.
        parts: every part of every split.
        leaks: test photographs that are in the training split too.
        compared: (training, test) photographs that were compared for leaks.
        distinct: how many of them differ from all others of their split.
    """

    dataset: str
    root: Path
    parts: tuple[PartCheck, ...]
    leaks: tuple[Leak, ...]
    compared: tuple[int, int]
    distinct: tuple[int, int]

    @property
    def ok(self) -> bool:
        """Whether everything is there, readable and free of leaks."""
        return all(part.ok for part in self.parts) and not self.leaks

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "dataset": self.dataset,
            "root": str(self.root),
            "ok": self.ok,
            "parts": [part.to_json() for part in self.parts],
            "leaks": [asdict(leak) for leak in self.leaks],
            "compared": {"train": self.compared[0], "test": self.compared[1]},
            "distinct": {"train": self.distinct[0], "test": self.distinct[1]},
        }


def check_dataset(
    name: str,
    root: Path | None = None,
    *,
    splits: Sequence[str] | None = None,
    decode: bool = True,
    leaks: bool = True,
    workers: int = 2,
    progress: Progress | None = None,
) -> CheckReport:
    """Look at everything of a data set that lies under a root; nothing is changed.

    Args:
        name: see `DATASETS`.
        root: as in `load_dataset`.
        splits: which splits to look at; None takes those that the set has.
        decode: read every file whole; otherwise only the headers.
        leaks: compare the clean photographs of train and test, when both are looked at.
        workers: threads that read.
        progress: where to report.

    Raises:
        UsageError: unknown name or split.
        DataError: the root is missing or the set was never finished.
    """
    progress = progress or Progress()
    info = dataset_info(name)
    where = data_root(name, root)
    wanted: list[Split] = [check_split(split) for split in splits or splits_of(name, where)]
    if not where.is_dir():
        raise not_there(info, where)
    reader = _Reader(decode, workers, progress)
    parts: list[PartCheck] = []
    samples: dict[Split, list[Sample]] = {}
    for split in wanted:
        samples[split] = []
        if info.load is not None:
            loaded = info.load(split, where)
            samples[split] += loaded.samples
            pairs = find_folder_pairs(split, where) if name == "folder" else None
            if pairs is None:
                parts.append(_check_loaded(loaded, split, info.pairs, reader))
            else:
                checked = _check_part(where, split, pairs.part, pairs, reader)
                notes = (*shared_files(split, where), *checked.notes)
                parts.append(replace(checked, notes=notes))
            continue
        for part, found in find_parts(name, split, where):
            parts.append(_check_part(where, split, part, found, reader))
            if found is not None:
                samples[split] += _readable(found, parts[-1])
            else:
                parts[-1] = replace(
                    parts[-1], notes=(*_packed(name, split, where), *parts[-1].notes)
                )
    found_leaks: tuple[Leak, ...] = ()
    compared = distinct = (0, 0)
    if leaks and len(set(wanted)) == 2 and _distinct_splits(samples):
        prints = {
            split: fingerprints(clean_sources_of(samples[split]), progress) for split in SPLITS
        }
        found_leaks = find_leaks(prints["train"], prints["test"])
        compared = (len(prints["train"].names), len(prints["test"].names))
        distinct = (count_distinct(prints["train"]), count_distinct(prints["test"]))
    return CheckReport(name, where, tuple(parts), found_leaks, compared, distinct)


class _Reader:
    """Sizes of files, read once each, and what is wrong with those that cannot be read."""

    def __init__(self, decode: bool, workers: int, progress: Progress) -> None:
        self._decode = decode
        self._workers = workers
        self._progress = progress
        self._known: dict[Path, tuple[int, int] | str] = {}

    def sizes(self, paths: Sequence[Path], title: str) -> dict[Path, tuple[int, int] | str]:
        """(height, width) of every file, or why it cannot be read."""
        new = [path for path in dict.fromkeys(paths) if path not in self._known]
        with (
            self._progress.task(title, len(new), "files") as task,
            ThreadPoolExecutor(max(1, self._workers)) as pool,
        ):
            for path, size in zip(new, pool.map(self._size, new), strict=True):
                self._known[path] = size
                task.advance()
        return {path: self._known[path] for path in paths}

    def _size(self, path: Path) -> tuple[int, int] | str:
        try:
            if self._decode:
                height, width, _ = read_rgb8(path).shape
                return height, width
            return read_size(path)
        except DataError as problem:
            return problem.problem


def _check_part(
    root: Path, split: Split, part: Part, found: FoundPart | None, reader: _Reader
) -> PartCheck:
    if found is None:
        first = part.layouts[0]
        absent = missing_part(root, part, "")
        notes = (f"{absent.got}; looked for\n    {absent.expected}",)
        return PartCheck(
            part.name,
            split,
            published=first.published,
            labels=part.labels,
            notes=notes,
            counted=first.counted,
        )
    pairs = found.pairs
    files = [path for pair in pairs for path in (pair.degraded, pair.clean) if path is not None]
    sizes = reader.sizes(files, f"{split}: {part.name}")
    unreadable = tuple(dict.fromkeys(size for size in sizes.values() if isinstance(size, str)))
    per_pair = len(part.labels)
    return PartCheck(
        part.name,
        split,
        found.layout.name,
        found.base,
        len(pairs),
        found.layout.published,
        _count_samples(found, sizes, per_pair),
        part.labels,
        _missing(found),
        tuple(map(printable, found.ignored)),
        unreadable,
        tuple(_mismatched(pairs, sizes)),
        _histogram(pairs, sizes),
        (
            *found.pairing.notes,
            *(f"link in a circle or to nowhere: {printable(path)}" for path in found.loops),
        ),
        found.layout.counted,
    )


def _count_samples(
    found: FoundPart, sizes: Mapping[Path, tuple[int, int] | str], per_pair: int
) -> int:
    if found.layout.maker != "windows":
        return len(found.pairs) * per_pair
    if any(isinstance(size, str) for size in sizes.values()):
        return 0
    return sum(1 for _ in samples_of(found))


def _missing(found: FoundPart) -> tuple[str, ...]:
    names = [f"clean partner of {path}" for path in found.pairing.unpaired_degraded]
    if not found.part.clean_alone_is_fine:
        names += [f"degraded partner of {path}" for path in found.pairing.unpaired_clean]
    names += [f"{found.layout.counted} pair {name}" for name in found.absent()]
    return tuple(names)


def _mismatched(
    pairs: Sequence[FilePair], sizes: Mapping[Path, tuple[int, int] | str]
) -> list[str]:
    odd: list[str] = []
    for pair in pairs:
        if pair.degraded is None or pair.clean is None:
            continue
        first, second = sizes[pair.degraded], sizes[pair.clean]
        if isinstance(first, tuple) and isinstance(second, tuple) and first != second:
            odd.append(
                f"{pair.degraded} is {first[1]}x{first[0]}, {pair.clean} is {second[1]}x{second[0]}"
            )
    return odd


def _histogram(
    pairs: Sequence[FilePair], sizes: Mapping[Path, tuple[int, int] | str]
) -> dict[str, int]:
    count: Counter[str] = Counter()
    for pair in pairs:
        size = sizes[pair.clean] if pair.clean is not None else ""
        if isinstance(size, tuple):
            count[f"{size[1]}x{size[0]}"] += 1
    return dict(count.most_common())


def _check_loaded(
    samples: SampleSet, split: Split, published: Mapping[str, int] | None, reader: _Reader
) -> PartCheck:
    pairs: list[FilePair] = []
    for sample in samples:
        degraded = sample.degraded.path if isinstance(sample.degraded, FileSource) else None
        clean = sample.clean.path if isinstance(sample.clean, FileSource) else None
        pairs.append(FilePair(sample.id, sample.scene, degraded, clean or degraded))
    files = [path for pair in pairs for path in (pair.degraded, pair.clean) if path is not None]
    sizes = reader.sizes(files, split)
    return PartCheck(
        "pairs",
        split,
        samples.layout,
        samples.root,
        len(pairs),
        None if published is None else published.get(split),
        len(samples),
        samples.labels,
        unreadable=tuple(dict.fromkeys(s for s in sizes.values() if isinstance(s, str))),
        mismatched=tuple(_mismatched(pairs, sizes)),
        sizes=_histogram(pairs, sizes),
        notes=samples.warnings,
    )


def _packed(name: str, split: Split, root: Path) -> tuple[str, ...]:
    """A line where the files are gone and their pack is there: the check reads files only."""
    try:
        pack, _ = find_pack(name, split, root)
    except DataError as problem:
        return (problem.problem,)
    if pack is None:
        return ()
    return (f"{pack.path} has {len(pack)} pictures; mmfe data verify reads packs",)


def _readable(found: FoundPart, check: PartCheck) -> list[Sample]:
    return [] if found.layout.maker == "windows" and check.unreadable else list(samples_of(found))


def _distinct_splits(samples: Mapping[Split, Sequence[Sample]]) -> bool:
    # A `folder` without train and test serves the same files twice: its parts' notes say so.
    return {s.degraded.name for s in samples["train"]} != {s.degraded.name for s in samples["test"]}
